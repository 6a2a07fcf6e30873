"""Both parts together: the old daemon's in an event loop, the new one's in a thread."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node.errors import NodeError
from node.handover import giver as module
from node.handover.capsule import Capsule
from node.handover.giver import Giver, PassOn
from node.handover.speech import Ended, Hello, Line, as_message
from node.handover.taker import Taker

WHO = Hello("aa" * 32, (1, 2), {"tun": "muslin0"}, port=6875)


class Old:
    """A daemon that can be asked to hand over, and what became of that."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.outcome: list[NodeError | None] = []
        self.failures: list[str] = []
        self.refuses: NodeError | None = None

    async def hand_over(self, pid: int, pass_on: PassOn) -> NodeError | None:
        self.asked.append(pid)
        if self.refuses:
            raise self.refuses
        failed = pass_on(Capsule(b"engine"), {"tun": 1})
        self.outcome.append(failed)
        return failed

    def on_failure(self, pid: int, error: NodeError) -> None:
        assert pid == os.getpid()
        self.failures.append(error.why)


def beside(path: Path, work: Callable[[], Any], who: Hello = WHO, old: Old | None = None) -> Old:
    """Do `work` in a thread beside an old daemon that listens at `path`."""
    old = old or Old()

    async def main() -> None:
        giver = Giver(path, who, old.hand_over, old.on_failure)
        try:
            async with asyncio.timeout(30.0):
                await asyncio.to_thread(work)
                while giver._tasks:
                    await asyncio.wait(giver._tasks)
        finally:
            await giver.close()

    asyncio.run(main())
    assert not path.exists()
    return old


def test_everything_goes_over_and_the_old_one_knows(tmp_path: Path) -> None:
    def take() -> None:
        taker = Taker.ask(tmp_path / "s", replace(WHO, port=0))
        assert taker.running == WHO
        estate = taker.take()
        assert estate.capsule == Capsule(b"engine")
        assert list(estate.descriptors) == ["tun"]
        taker._line.send("taken")
        assert taker._line.expect("yours", 10.0)[1] == {}
        estate.close()
        taker.close()

    old = beside(tmp_path / "s", take)
    assert (old.asked, old.outcome, old.failures) == ([os.getpid()], [None], [])


def test_its_socket_is_for_its_owner_alone_and_an_old_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
        stale.bind(str(path))
    modes: list[int] = []
    beside(path, lambda: modes.append(stat.S_IMODE(path.stat().st_mode)))
    assert modes == [0o600]


def test_a_folder_that_cannot_hold_a_socket_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(NodeError, match=r"listening on .*nowhere"):
            Giver(tmp_path / "nowhere" / "s", WHO, Old().hand_over, Old().on_failure)

    asyncio.run(main())


def test_who_may_not_follow_is_told_why_and_nothing_is_handed_over(tmp_path: Path) -> None:
    def ask() -> None:
        with pytest.raises(NodeError, match="tun cannot be changed") as caught:
            Taker.ask(tmp_path / "s", replace(WHO, settings={"tun": "other0"}))
        assert caught.value.code == "other-settings"

    old = beside(tmp_path / "s", ask)
    assert (old.asked, len(old.failures)) == ([], 1)


def test_another_user_is_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.geteuid()

    def ask() -> None:
        monkeypatch.setattr(module.os, "geteuid", lambda: mine + 1)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as end:
            end.connect(str(tmp_path / "s"))
            with Line(end) as line, suppress(Ended):
                line.send("hello", who=as_message(WHO))
                with pytest.raises(Ended, match=r"closed the connection|is gone"):
                    line.receive(10.0)
        monkeypatch.undo()

    assert beside(tmp_path / "s", ask).asked == []


def test_two_cannot_take_over_at_once(tmp_path: Path) -> None:
    def ask() -> None:
        first = Taker.ask(tmp_path / "s", WHO)
        with pytest.raises(NodeError, match="about to take over"):
            Taker.ask(tmp_path / "s", WHO)
        first.close()

    beside(tmp_path / "s", ask)


@pytest.mark.parametrize("when", ["welcomed", "given"])
def test_one_that_goes_away_in_between_is_one_that_never_came(tmp_path: Path, when: str) -> None:
    def go_away() -> None:
        taker = Taker.ask(tmp_path / "s", WHO)
        if when == "given":
            taker.take().close()
        taker.close()

    old = beside(tmp_path / "s", go_away)
    assert len(old.failures) == 1
    assert [bool(error) for error in old.outcome] == ([True] if when == "given" else [])


def test_one_that_says_nothing_for_too_long_is_left(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "ANSWER_PATIENCE", 0.05)

    def dawdle() -> None:
        taker = Taker.ask(tmp_path / "s", WHO)
        taker.take().close()
        with pytest.raises(NodeError, match="does not answer"):
            taker._line.receive(10.0)
        with pytest.raises(Ended):
            taker.confirm()
        taker.close()

    old = beside(tmp_path / "s", dawdle)
    assert [bool(error) for error in old.outcome] == [True]


def test_one_that_was_too_slow_is_refused_before_the_old_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it could take the keys of one that has used them further, and ended then."""
    monkeypatch.setattr(module, "ANSWER_PATIENCE", 0.05)
    told = threading.Event()
    heard: list[bool] = []

    class Slow(Old):
        async def hand_over(self, pid: int, pass_on: PassOn) -> NodeError | None:
            failed = await super().hand_over(pid, pass_on)
            # Where a daemon would make another engine of what it knew.
            heard.append(await asyncio.to_thread(told.wait, 3.0))
            return failed

    def dawdle() -> None:
        taker = Taker.ask(tmp_path / "s", WHO)
        taker.take().close()
        with pytest.raises(NodeError, match="does not answer"):
            taker._line.receive(10.0)
        told.set()
        taker.close()

    beside(tmp_path / "s", dawdle, old=Slow())
    assert heard == [True]


def test_one_that_comes_at_a_bad_moment_is_told(tmp_path: Path) -> None:
    def ask() -> None:
        taker = Taker.ask(tmp_path / "s", WHO)
        with pytest.raises(NodeError, match="this node leaves"):
            taker.take()
        taker.close()

    old = Old()
    old.refuses = NodeError("this node leaves", "", "node-left")

    async def main() -> None:
        giver = Giver(tmp_path / "s", WHO, old.hand_over, old.on_failure)
        async with asyncio.timeout(30.0):
            await asyncio.to_thread(ask)
        await giver.close()

    asyncio.run(main())
    assert old.failures == ["this node leaves"]
