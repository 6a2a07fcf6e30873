"""How a daemon goes, with doubles around a real driver; real daemons do it in tests/netns."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from node import departure as module
from node.control.turns import Turns
from node.departure import Departure
from node.errors import NodeError
from node.handover.capsule import CAPSULE, CONTROL, LOCK, TUN, UDP, Capsule
from node.handover.speech import Hello
from node.state import StateFolder
from node.systemd import Notifier
from overlay.errors import RefusedError
from tests.support.drivers import ONE, Bench, on_loop
from tests.support.manager import Manager

WHO = Hello("aa" * 32, (1, 2), {})


class Vanished(BaseException):
    """Stands for the end of the process."""


class Daemon:
    """What `Leaving` asks for; `done` says in which order things were done."""

    def __init__(self, bench: Bench, folder: StateFolder, notifier: Notifier) -> None:
        self.done: list[object] = []
        self.folder, self.notifier, self.driver = folder, notifier, bench.driver
        self.engine: Any = SimpleNamespace(hand_over=self._spend)
        self.handlers: Any = Mock(turns=Turns(), dispatch=AsyncMock())
        self.handlers.benches.close = AsyncMock(side_effect=lambda: self._note("benches"))
        self.edges: Any = Mock(descriptors={TUN: 1, UDP: 2})
        self.edges.leave = lambda: self._note("left")
        self.lock = 0
        self.refuses = False

    def _note(self, what: object) -> None:
        self.done.append(what)

    def _spend(self, _: float) -> bytes:
        if self.refuses:
            raise RefusedError("node-left", "this node leaves", "wait")
        assert self.driver.is_idle
        self._note("spent")
        return b"engine"

    def now(self) -> float:
        return 1.0

    async def end_lanes(self) -> None:
        self._note("lanes ended")

    async def start_again(self, capsule: Capsule | None) -> None:
        self._note(("again", capsule))


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "node")
    folder.create()
    return folder


def leaving(folder: StateFolder, work, notifier: Notifier | None = None) -> None:
    """Do `work(departure, daemon, bench)` on a loop."""

    async def main() -> None:
        with Bench() as bench:
            daemon = Daemon(bench, folder, notifier or Notifier({}))
            departure = Departure(daemon, WHO, "")
            door = Mock(fileno=lambda: 5, shut=AsyncMock(), open=Mock())
            departure._doors[CONTROL] = door
            async with asyncio.timeout(30.0):
                await work(departure, daemon, bench)

    on_loop(main)


@pytest.fixture
def vanishing(monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(code: int) -> None:
        assert code == 0
        raise Vanished

    monkeypatch.setattr(module.os, "_exit", vanish)
    monkeypatch.setattr(module.logging, "shutdown", lambda: None)


@pytest.mark.usefixtures("vanishing")
def test_all_that_is_in_flight_is_finished_then_everything_goes_over_at_once(folder) -> None:
    async def work(departure: Departure, daemon: Daemon, _: Bench) -> None:
        given: list[dict[str, int]] = []

        def pass_on(capsule: Capsule, descriptors: dict[str, int]) -> None:
            assert capsule == Capsule(b"engine")
            assert daemon.handlers.turns._alone
            departure._doors[CONTROL].shut.assert_awaited_once()
            departure._doors[CONTROL].open.assert_not_called()
            given.append(dict(descriptors))

        with pytest.raises(Vanished):
            await departure.hand_over(7, pass_on)
        assert given == [{TUN: 1, UDP: 2, LOCK: 0, CONTROL: 5}]
        assert daemon.done == ["benches", "lanes ended", "spent"]

    leaving(folder, work)


@pytest.mark.usefixtures("vanishing")
def test_the_service_manager_is_told_who_comes_next(folder, tmp_path) -> None:
    async def work(departure: Departure, daemon: Daemon, _: Bench) -> None:
        with pytest.raises(Vanished):
            await departure.hand_over(77, lambda *_: None)

    with Manager(tmp_path / "notify") as manager:
        leaving(folder, work, Notifier(manager.variables))
        assert manager.said("MAINPID") == {"MAINPID": "77"}


def test_what_is_not_taken_is_gone_on_with(folder) -> None:
    async def work(departure: Departure, daemon: Daemon, _: Bench) -> None:
        failed = NodeError("it does not answer")
        assert await departure.hand_over(7, lambda *_: failed) is failed
        assert daemon.done[-1] == ("again", Capsule(b"engine"))
        assert not daemon.handlers.turns._alone
        departure._doors[CONTROL].open.assert_called_once()

    leaving(folder, work)


def test_an_engine_that_cannot_be_handed_over_now_goes_on_itself(folder) -> None:
    async def work(departure: Departure, daemon: Daemon, _: Bench) -> None:
        daemon.refuses = True
        with pytest.raises(NodeError, match="this node leaves") as caught:
            await departure.hand_over(7, Mock())
        assert (caught.value.code, caught.value.fix) == ("node-left", "wait")
        assert daemon.done[-1] == ("again", None)

    leaving(folder, work)


def test_a_write_that_is_under_way_is_waited_for_while_packets_flow(folder) -> None:
    async def work(departure: Departure, daemon: Daemon, bench: Bench) -> None:
        bench.listener.slow = True
        bench.driver.perform([ONE])
        assert not bench.driver.is_idle
        handing = asyncio.ensure_future(departure.hand_over(7, lambda *_: NodeError("no")))
        for _ in range(20):
            await asyncio.sleep(0)
        assert "spent" not in daemon.done
        bench.listener.writing()
        await handing
        assert "spent" in daemon.done

    leaving(folder, work)


def test_without_a_store_a_stop_is_a_farewell(folder) -> None:
    async def work(departure: Departure, daemon: Daemon, bench: Bench) -> None:
        await departure.say_goodbye(for_good=False)
        assert bench.count("stop") == 1
        assert daemon.done == []

    leaving(folder, work)


def test_with_a_store_nothing_is_said_and_everything_left(folder, tmp_path) -> None:
    async def work(departure: Departure, daemon: Daemon, bench: Bench) -> None:
        await departure.say_goodbye(for_good=False)
        assert bench.count("stop") == 0
        assert daemon.done == ["lanes ended", "spent", "left"]

    with Manager(tmp_path / "notify") as manager:
        notifier = Notifier(manager.variables)
        leaving(folder, work, notifier)
        assert notifier.barrier(20.0)
        (handle,) = manager.store[CAPSULE]
        assert Capsule.unseal(handle) == Capsule(b"engine", 1)


def test_who_leaves_for_good_leaves_nothing_in_the_store(folder, tmp_path) -> None:
    async def work(departure: Departure, daemon: Daemon, bench: Bench) -> None:
        await departure.say_goodbye(for_good=True)
        assert bench.count("stop") == 1

    with Manager(tmp_path / "notify") as manager:
        leaving(folder, work, Notifier(manager.variables))
        assert CAPSULE not in manager.store


def test_an_engine_that_cannot_be_left_says_farewell(folder, tmp_path) -> None:
    async def work(departure: Departure, daemon: Daemon, bench: Bench) -> None:
        daemon.refuses = True
        await departure.say_goodbye(for_good=False)
        assert bench.count("stop") == 1

    with Manager(tmp_path / "notify") as manager:
        leaving(folder, work, Notifier(manager.variables))
        assert CAPSULE not in manager.store
