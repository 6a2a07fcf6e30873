"""The thread that writes the journal, so that a slow disk stops nothing else.

    event loop --changes--> thread: write, sync --stored, or why not--> event loop

An fsync takes milliseconds on a good day and seconds on a bad one. The loop carries packets and
answers probes meanwhile; what must wait is `overlay.writes`' business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from node.errors import NodeError
from node.journal import Journal
from overlay.effects import Report
from overlay.errors import OverlayError
from overlay.state import Change

Stored = Callable[[OverlayError | None], None]


class Writer:
    """Writes one journal; nobody else may.

    To be made in a running event loop. Until `start` it writes at once, and its caller waits: the
    boot counter must be stored before anything goes on.

    Args:
        journal: an open one; closed by whoever opened it, after `close`.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._report = journal.report
        self._executor: ThreadPoolExecutor | None = None

    def start(self) -> None:
        """Write in a thread from now on; what the journal reports still comes in the loop's."""
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._journal.report = self._pass_on

    def write(self, changes: tuple[Change, ...], then: Stored) -> None:
        """Store the changes, then call `then` in the loop: with None, or with why they are not."""
        if self._executor is None:
            then(self._append(changes))
            return
        future = self._loop.run_in_executor(self._executor, self._append, changes)
        future.add_done_callback(partial(self._tell, then))

    def _pass_on(self, report: Report) -> None:
        self._loop.call_soon_threadsafe(self._report, report)

    def _append(self, changes: tuple[Change, ...]) -> OverlayError | None:
        try:
            self._journal.append(changes)
        except OverlayError as error:
            return error
        return None

    def _tell(self, then: Stored, future: asyncio.Future[OverlayError | None]) -> None:
        if future.cancelled():
            return  # the loop ends
        defect = future.exception()
        if defect is None:
            then(future.result())
            return
        # What a defect leaves on the disk nobody knows, so it is not stored.
        context = {"message": "writing the journal failed", "exception": defect}
        self._loop.call_exception_handler(context)
        then(NodeError(f"writing the journal failed ({defect})", "look at the log"))

    def close(self) -> None:
        """Wait for the write that is under way, and end. Safe to call twice."""
        if self._executor is not None:
            self._executor.shutdown(wait=True)
