"""Tests of node.writer: the loop goes on while the journal is written, and hears how it ended."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from node.errors import NodeError
from node.journal import Journal, SystemCalls, read_entries
from node.writer import Writer
from overlay.effects import Report
from overlay.errors import OverlayError
from overlay.state import Change
from tests.support.drivers import on_loop

CHANGES = ((b"key", b"value"),)


class SlowDisk(SystemCalls):
    """Syncs when it is told to."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.fails = False
        self.threads: set[int] = set()

    def sync(self, handle: int) -> None:
        self.threads.add(threading.get_ident())
        assert self.done.wait(30.0)
        if self.fails:
            raise OSError(5, "Input/output error")
        super().sync(handle)


class Setup:
    """A journal on a slow disk, its writer, and what was said."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state"
        Journal.create(self.path, {b"schema": b"1"}).close()
        self.disk = SlowDisk()
        self.disk.done.set()
        self.reports: list[tuple[str, int]] = []
        self.journal = Journal.open(self.path, self.disk, self.report)
        self.writer = Writer(self.journal)
        self.told: asyncio.Queue[OverlayError | None] = asyncio.Queue()

    def report(self, report: Report) -> None:
        self.reports.append((report.event, threading.get_ident()))

    def write(self, changes: tuple[Change, ...] = CHANGES) -> None:
        self.writer.write(changes, self.told.put_nowait)

    def close(self) -> None:
        self.disk.done.set()
        self.writer.close()
        self.journal.close()


def test_until_it_is_started_it_writes_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        setup = Setup(tmp_path)
        setup.write()
        assert setup.told.get_nowait() is None
        assert read_entries(setup.path)[b"key"] == b"value"
        setup.close()

    on_loop(main)


def test_the_loop_goes_on_while_the_disk_writes(tmp_path: Path) -> None:
    async def main() -> None:
        setup = Setup(tmp_path)
        setup.writer.start()
        setup.disk.done.clear()
        setup.write()
        for _ in range(20):
            await asyncio.sleep(0)
        assert setup.told.empty()
        setup.disk.done.set()
        assert await setup.told.get() is None
        assert read_entries(setup.path)[b"key"] == b"value"
        assert threading.get_ident() in setup.disk.threads  # when it was opened
        assert len(setup.disk.threads) == 2
        setup.close()

    on_loop(main)


def test_what_failed_is_said_and_reports_come_in_the_loops_thread(tmp_path: Path) -> None:
    async def main() -> None:
        setup = Setup(tmp_path)
        setup.writer.start()
        setup.disk.fails = True
        setup.write()
        error = await setup.told.get()
        assert isinstance(error, NodeError)
        await asyncio.sleep(0)
        assert setup.reports == [("journal.distrusted", threading.get_ident())]
        setup.close()

    on_loop(main)


def test_a_defect_counts_as_not_stored_and_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        setup = Setup(tmp_path)
        setup.writer.start()
        logged: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: logged.append(what))
        monkeypatch.setattr(setup.journal, "append", lambda _: 1 / 0)
        setup.write()
        assert "division by zero" in str(await setup.told.get())
        assert isinstance(logged[0]["exception"], ZeroDivisionError)
        setup.close()

    on_loop(main)


def test_closing_waits_for_the_write_that_is_under_way(tmp_path: Path) -> None:
    async def main() -> None:
        setup = Setup(tmp_path)
        setup.writer.start()
        setup.disk.done.clear()
        setup.write()
        threading.Timer(0.05, setup.disk.done.set).start()
        setup.writer.close()
        assert read_entries(setup.path)[b"key"] == b"value"
        setup.close()

    on_loop(main)
