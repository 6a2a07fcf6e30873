"""How a daemon comes to its folder: as the first, after one that ended, or after one that runs.

folder free  ------------------------------------------> lock, what the store kept, or nothing
folder held by a daemon that listens for the next one --> hello; everything is taken later
folder held by anybody else ----------------------------> refused, as always
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from node.config import NodeConfig
from node.errors import NodeError
from node.handover.capsule import LOCK, TUN, UDP
from node.handover.speech import NAME, Hello, this_namespace
from node.handover.store import discard, read_store
from node.handover.taker import Estate, Taker
from node.logs import EventLog
from node.state import StateFolder, sign_lock
from node.systemd import Notifier, take_descriptors
from overlay.types import Endpoint, NodeId

FOLDER_LOCKED: Final = "folder-locked"


def hello_for(config: NodeConfig, node: NodeId, port: int = 0) -> Hello:
    """Who a daemon is, with the settings that what is passed on was made for.

    Args:
        config: its settings.
        node: its node.
        port: of its UDP socket; 0 before there is one.
    """
    settings = {
        "listen": str(config.listen),
        "tun": config.tun,
        "lanes": "several" if config.lanes > 1 else "one",
        "offload.tun": ",".join(config.tun_offload),
    }
    return Hello(node.hex(), this_namespace(), settings, Notifier().address, port)


class Succession:
    """What this daemon follows. Made by `succeed`.

    Attributes:
        lock: descriptor of the folder's lock; -1 as long as a running daemon has it.
        left: what an earlier process of the service left in the manager's store.
        taker: the connection to the daemon that runs; None if none does.
        notifier: speaks to the service manager, if there is one.
        local: where the daemon that runs listens; None if none does.
    """

    def __init__(
        self, lock: int, left: Estate, notifier: Notifier, taker: Taker | None = None
    ) -> None:
        self.notifier = notifier
        self.lock = lock
        self.left = left
        self.taker = taker
        self.local: Endpoint | None = None

    @property
    def runs(self) -> bool:
        """Whether a daemon runs that this one follows."""
        return self.taker is not None

    def take(self) -> Estate:
        """What there is to go on with; from here on a running daemon stands still.

        Raises:
            NodeError: the running daemon does not give it, and goes on. Nothing else.
        """
        if self.taker is None:
            return self.left
        estate = self.taker.take()
        missing = {LOCK, TUN, UDP} - estate.descriptors.keys()
        if missing:
            estate.close()
            raise NodeError(f"the running daemon did not hand over its {min(missing)}")
        self.lock = estate.descriptors[LOCK]
        return estate

    def confirm(self) -> int:
        """Now the folder is ours, and a daemon that ran has ended; returns the lock's descriptor.

        Raises:
            NodeError: it goes on; nothing of the estate may be used. Nothing else.
        """
        if self.taker is not None:
            self.taker.confirm()
            sign_lock(self.lock)
            EventLog().info("node.took-over", pid=self.taker.pid)
        return self.lock


@contextmanager
def succeed(folder: StateFolder, config: NodeConfig, node: NodeId) -> Iterator[Succession]:
    """Hold the folder, or be about to be given it, for the time of a `with` block.

    Args:
        folder: of the node.
        config: of this daemon.
        node: which one it is.

    Raises:
        NodeError: somebody else holds the folder and keeps it. Nothing else.
    """
    kept, notifier = take_descriptors(), Notifier()
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(folder.locked())
        except NodeError as error:
            if error.code != FOLDER_LOCKED:
                raise
            discard(kept, notifier)  # somebody has run since, and is followed now
            taker = _ask(folder, hello_for(config, node), error)
            stack.callback(taker.close)
            found = Succession(-1, Estate({}, None), notifier, taker)
            found.local = Endpoint(config.listen.host, taker.running.port)
            stack.callback(_close_lock, found)
        else:
            found = Succession(lock, read_store(kept, folder, notifier), notifier)
        yield found


def _ask(folder: StateFolder, who: Hello, locked: NodeError) -> Taker:
    try:
        return Taker.ask(folder.path / NAME, who)
    except (FileNotFoundError, ConnectionRefusedError):
        raise locked from None  # a verb that works on the folder, or an older daemon


def _close_lock(succession: Succession) -> None:
    with suppress(OSError):
        os.close(succession.lock)
