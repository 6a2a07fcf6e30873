"""Settles what container runtimes deleted while no daemon ran: the notes of `node.cni.notes`.

Before a pod is added, because the same container may be added again, and its old note must not
delete it; and once after the start. A note goes away with what it says, in one turn: whoever read
it earlier looks again whether it is still there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from node.cni import notes
from node.control.ports import DaemonPort
from node.control.turns import Turns
from node.errors import clauses
from overlay.effects import Report
from overlay.errors import OverlayError

CNI = "cni"
"""The owner of pods that notes may be about."""


class Settling:
    """Reads the notes and does what they say.

    Args:
        daemon: whose folder and pods.
        turns: taken by whoever changes pods.
        delete: deletes a pod by its name, inside a turn; raises OverlayError.
    """

    def __init__(
        self, daemon: DaemonPort, turns: Turns, delete: Callable[[str], Awaitable[None]]
    ) -> None:
        self._daemon = daemon
        self._turns = turns
        self._delete = delete

    async def settle(self) -> None:
        """Do what all notes say. What fails is logged, and stays for the next time."""
        failed: list[OverlayError | OSError] = []
        try:
            for path, note in notes.found(str(self._daemon.folder.path)):
                await self._try(path, note, failed)
        except OSError as error:
            failed.append(error)
        if failed:  # a full disk has one reason for all
            self._report("pod.unsettled", {"why": clauses(failed[-1])[1]})

    async def _try(
        self, path: str, note: dict[str, str], failed: list[OverlayError | OSError]
    ) -> None:
        try:
            async with self._turns.sharing((note["container"], note["interface"])):
                if notes.is_there(path):
                    await self._settle(note)
                    notes.take_away(path)
        except (OverlayError, OSError) as error:
            failed.append(error)

    async def _settle(self, note: dict[str, str]) -> None:
        pod = self._daemon.engine.pod_of(note["container"], note["interface"])
        if pod is None or pod.owner != CNI or pod.attachment.network != note["network"]:
            return
        await self._delete(pod.name)
        self._report("pod.settled", {"pod": pod.name})

    def _report(self, event: str, fields: dict[str, str]) -> None:
        self._daemon.perform([Report(event, dict(fields))])
