"""The new daemon's part, with a thread that plays the old one; both together in `test_giver`."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.errors import NodeError
from node.handover import taker as module
from node.handover.capsule import CAPSULE, Capsule
from node.handover.speech import Hello, Line, as_message
from node.handover.taker import Taker

WHO = Hello("aa" * 32, (1, 2), {"tun": "muslin0"})
SOON = 10.0


@contextmanager
def old_daemon(path: Path, work: Callable[[Line], None]) -> Iterator[None]:
    """Somebody who listens at `path`, and does `work` with the first who comes."""

    def serve() -> None:
        end, _ = listener.accept()
        with Line(end) as line:
            work(line)

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join(SOON)


def welcome(line: Line) -> None:
    line.expect("hello", SOON)
    line.send("welcome", who=as_message(WHO))


def give(line: Line, **more: int) -> None:
    welcome(line)
    line.expect("give", SOON)
    memory = Capsule(b"engine").seal()
    line.send("given", {CAPSULE: memory, **more})
    os.close(memory)


def test_what_was_given_is_an_estate(tmp_path: Path) -> None:
    with old_daemon(tmp_path / "s", lambda line: give(line, tun=1)):
        taker = Taker.ask(tmp_path / "s", WHO)
        assert (taker.pid, taker.running) == (os.getpid(), WHO)
        estate = taker.take()
        assert estate.capsule == Capsule(b"engine")
        assert os.fstat(estate.descriptors["tun"]).st_ino == os.fstat(1).st_ino
        estate.close()
        taker.close()
        taker.close()


def test_nobody_there_is_told_from_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Taker.ask(tmp_path / "s", WHO)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
        stale.bind(str(tmp_path / "s"))
    with pytest.raises(ConnectionRefusedError):
        Taker.ask(tmp_path / "s", WHO)
    (tmp_path / "s").unlink()

    def refuse(line: Line) -> None:
        line.expect("hello", SOON)
        line.refuse(NodeError("no", "stop it", "other-settings"))

    with old_daemon(tmp_path / "s", refuse), pytest.raises(NodeError, match="no") as caught:
        Taker.ask(tmp_path / "s", WHO)
    assert caught.value.code == "other-settings"


def test_an_estate_without_a_capsule_is_none_and_closed(tmp_path: Path) -> None:
    def give_nothing(line: Line) -> None:
        welcome(line)
        line.expect("give", SOON)
        line.send("given", {"tun": 1})

    before = len(os.listdir("/proc/self/fd"))
    with old_daemon(tmp_path / "s", give_nothing):
        taker = Taker.ask(tmp_path / "s", WHO)
        with pytest.raises(NodeError, match="did not hand over"):
            taker.take()
        taker.close()
    assert len(os.listdir("/proc/self/fd")) == before


def confirming(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[[Line, subprocess.Popen], None],
    *,
    reads: bool = True,
) -> None:
    """`confirm` towards a process of which the old daemon is made to be.

    Without `reads`, nobody reads "taken", and `work` is done before anything is heard.
    """
    monkeypatch.setattr(module, "DYING", 0.05)
    said, done = threading.Event(), threading.Event()
    expect = Line.expect

    def late(line: Line, what: str, within: float) -> tuple:
        if what == "yours" and not reads:
            said.set()
            assert done.wait(SOON)
        return expect(line, what, within)

    monkeypatch.setattr(Line, "expect", late)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        real = os.pidfd_open
        monkeypatch.setattr(module.os, "pidfd_open", lambda _: real(process.pid))

        def serve(line: Line) -> None:
            welcome(line)
            if reads:
                line.expect("taken", SOON)
            else:
                said.wait(SOON)
            work(line, process)
            line.close()
            done.set()

        try:
            with old_daemon(path, serve):
                taker = Taker.ask(path, WHO)
                try:
                    taker.confirm()
                finally:
                    taker.close()
            assert process.poll() is not None
        finally:
            process.kill()


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def test_it_is_ours_when_the_old_process_has_ended(tmp_path, monkeypatch) -> None:
    def hand_over(line: Line, process: subprocess.Popen) -> None:
        line.send("yours")
        end(process)

    confirming(tmp_path / "s", monkeypatch, hand_over)


def test_it_is_ours_when_the_old_process_ended_before_it_could_say_so(
    tmp_path, monkeypatch
) -> None:
    confirming(tmp_path / "s", monkeypatch, lambda _, process: end(process))


def test_it_is_not_ours_when_the_old_process_went_on_and_ended_then(tmp_path, monkeypatch) -> None:
    """It has used the keys further: nobody may use them again from where they were given."""

    def go_on(line: Line, process: subprocess.Popen) -> None:
        line.refuse(NodeError("too late"))
        end(process)

    with pytest.raises(NodeError, match="too late"):
        confirming(tmp_path / "s", monkeypatch, go_on, reads=False)


def test_it_is_ours_when_the_old_process_ended_before_it_heard_anything(
    tmp_path, monkeypatch
) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        real, gone = os.pidfd_open, threading.Event()
        monkeypatch.setattr(module.os, "pidfd_open", lambda _: real(process.pid))

        def give_and_end(line: Line) -> None:
            give(line)
            end(process)
            line.close()
            gone.set()

        with old_daemon(tmp_path / "s", give_and_end):
            taker = Taker.ask(tmp_path / "s", WHO)
            try:
                taker.take()
                assert gone.wait(SOON)
                taker.confirm()
            finally:
                taker.close()


def test_an_old_process_that_does_not_end_is_ended(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "END_PATIENCE", 0.05)
    confirming(tmp_path / "s", monkeypatch, lambda line, _: line.send("yours"))


@pytest.mark.parametrize("says", [True, False], ids=["refused", "closed"])
def test_it_is_not_ours_when_the_old_one_goes_on(tmp_path, monkeypatch, says: bool) -> None:
    def go_on(line: Line, _: subprocess.Popen) -> None:
        if says:
            line.refuse(NodeError("too late"))

    with pytest.raises(NodeError, match="too late" if says else "closed the connection"):
        confirming(tmp_path / "s", monkeypatch, go_on)
