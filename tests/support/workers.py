"""Two workers for the whole suite (`pytest -n 2`, by pytest-xdist): most tests wait for daemons.

    first worker    tests/netns; files with tests that want to be alone before the others
    second worker   everything else; then tests/netns, from the end

A file is one worker's. While a test marked `alone` runs, the other worker stands still between two
of its tests; beside one marked `alone("netns")` it runs others than those marked `netns`. Workers
are process groups of their own: Ctrl-C reaches them through us, once, and we wait until they have
taken down what they made.
"""

from __future__ import annotations

import fcntl
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytest
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

SLOW = "tests/netns/"
PATIENCE = 120.0
"""Seconds for a worker to take down what it made. Two daemons that hear no signal need twenty."""

_INTRODUCTION = "import os; os.setpgid(0, 0); channel.send(os.getpid())"


class TwoKinds(LoadFileScheduling):
    """Gives the first worker what waits, and the others what computes, for as long as there is."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        files = list(self.workqueue)
        slow = [file for file in files if file.startswith(SLOW)]
        fast = [file for file in files if not file.startswith(SLOW)]
        is_first = node.gateway.id == "gw0"
        choice = (slow or fast)[0] if is_first else (fast or slow[::-1])[0]
        self.workqueue.move_to_end(choice, last=False)
        super()._assign_work_unit(node)


class Controller:
    """What is done where no test runs: workers are started, given work, and ended."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="muslin-turns-")
        self._workers: dict[WorkerController, int] = {}

    def pytest_configure_node(self, node: WorkerController) -> None:
        """Before the worker begins."""
        node.workerinput["turns"] = self._folder.name
        self._workers[node] = node.gateway.remote_exec(_INTRODUCTION).receive()

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> TwoKinds:
        config.option.loadscopereorder = False  # ours is the order of the files, not their length
        return TwoKinds(config, log)

    def pytest_sessionstart(self) -> None:
        # To be terminated is like Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)

    @pytest.hookimpl(tryfirst=True)  # xdist ends workers a few seconds later, whatever they do
    def pytest_sessionfinish(self) -> None:
        for node, pid in self._workers.items():
            if not node.channel.isclosed():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)
        for node in self._workers:
            with suppress(EOFError, node.channel.RemoteError, node.channel.TimeoutError):
                node.channel.waitclose(PATIENCE)

    def pytest_unconfigure(self) -> None:
        self._folder.cleanup()


class Turns:
    """Who may run a test now.

    Args:
        folder: that all workers share.
    """

    def __init__(self, folder: Path) -> None:
        # Who waits to be alone holds the door, so that nobody overtakes.
        self._door, self._house, self._room = (
            (folder / name).open("wb") for name in ("door", "house", "room")
        )

    @contextmanager
    def turn(self, item: pytest.Item) -> Iterator[None]:
        """The time of one test."""
        alone = item.get_closest_marker("alone")
        house = fcntl.LOCK_EX if alone and not alone.args else fcntl.LOCK_SH
        room = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        with ExitStack() as stack:
            with _locked(self._door, fcntl.LOCK_EX):
                stack.enter_context(_locked(self._house, house))
                if item.get_closest_marker("netns"):
                    stack.enter_context(_locked(self._room, room))
            yield

    def close(self) -> None:
        """Locks go with the files."""
        for file in (self._door, self._house, self._room):
            file.close()


class Worker:
    """What is done where tests run."""

    def __init__(self, folder: Path) -> None:
        self._turns = Turns(folder)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        wants = {item.path for item in items if item.get_closest_marker("alone")}
        items.sort(key=lambda item: item.path not in wants)

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # waiting is no part of a test's time
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        with self._turns.turn(item):
            return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        # It has heard it once if it had to. Another would end the taking down half-way.
        signal.signal(signal.SIGINT, lambda *_: None)

    def pytest_unconfigure(self) -> None:
        self._turns.close()


@contextmanager
def _locked(file: IO[bytes], how: int) -> Iterator[None]:
    fcntl.flock(file, how)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def pytest_configure(config: pytest.Config) -> None:
    """For `-p tests.support.workers`, and called by tests/conftest.py."""
    given: dict[str, Any] | None = getattr(config, "workerinput", None)
    if given is not None:
        config.pluginmanager.register(Worker(Path(given["turns"])))
    elif config.getoption("numprocesses"):
        config.pluginmanager.register(Controller())
