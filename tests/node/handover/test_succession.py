from __future__ import annotations

import asyncio
import fcntl
import os
from dataclasses import replace
from pathlib import Path

import pytest

from node.config import NodeConfig
from node.errors import NodeError
from node.handover import succession as module
from node.handover.capsule import LOCK, TUN, UDP, Capsule
from node.handover.giver import Giver, PassOn
from node.handover.speech import NAME
from node.handover.succession import hello_for, succeed
from node.state import StateFolder
from node.systemd import Notifier
from overlay.types import Endpoint, NodeId
from tests.support.manager import Manager

NODE = NodeId(bytes(32))
CONFIG = replace(NodeConfig(), listen=Endpoint("127.0.0.1", 6875))


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "node")
    folder.create()
    return folder


def is_locked(folder: StateFolder) -> bool:
    with (folder.path / "lock").open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_the_first_one_has_the_lock_and_nothing_to_go_on_with(folder) -> None:
    with succeed(folder, CONFIG, NODE) as succession:
        assert not succession.runs
        assert succession.local is None
        estate = succession.take()
        assert (estate.descriptors, estate.capsule) == ({}, None)
        assert succession.confirm() == succession.lock >= 0
        assert is_locked(folder)
    assert not is_locked(folder)


def test_a_folder_that_somebody_else_works_on_is_refused_as_always(folder) -> None:
    with (
        folder.locked(),
        pytest.raises(NodeError, match="is in use by process") as caught,
        succeed(folder, CONFIG, NODE),
    ):
        pytest.fail("it is not ours")
    assert caught.value.code == "folder-locked"


def test_what_goes_wrong_later_is_not_taken_for_a_folder_in_use(folder) -> None:
    with pytest.raises(NodeError, match="later"), succeed(folder, CONFIG, NODE):
        raise NodeError("later", code="folder-locked")


def follow(folder: StateFolder, names: tuple[str, ...], work, **who: str) -> None:
    """Do `work` with what follows a daemon that passes on these descriptors."""

    async def main() -> None:
        with folder.locked() as lock:
            given = dict.fromkeys(names, lock)

            async def hand_over(_: int, pass_on: PassOn) -> NodeError | None:
                return pass_on(Capsule(b"engine"), given)

            running = replace(hello_for(CONFIG, NODE, 6875), **who)
            giver = Giver(folder.path / NAME, running, hand_over, lambda *_: None)
            async with asyncio.timeout(30.0):
                await asyncio.to_thread(_follow, folder, work)
            await giver.close()

    asyncio.run(main())


def _follow(folder: StateFolder, work) -> None:
    with succeed(folder, CONFIG, NODE) as succession:
        work(succession)


def test_after_one_that_runs_everything_is_taken_when_it_is_asked_for(folder) -> None:
    def work(succession) -> None:
        assert succession.runs
        assert succession.lock == -1
        assert succession.local == CONFIG.listen
        estate = succession.take()
        assert estate.capsule == Capsule(b"engine")
        # The very lock, not another one: it is held as long as one of both is open.
        assert os.fstat(succession.lock).st_ino == (folder.path / "lock").stat().st_ino
        estate.descriptors.pop(LOCK)
        estate.close()

    follow(folder, (LOCK, TUN, UDP), work)
    assert not is_locked(folder)


def test_what_a_service_manager_kept_from_before_a_daemon_that_runs_is_let_go_of(
    folder, tmp_path, monkeypatch
) -> None:
    def work(succession) -> None:
        assert succession.notifier.barrier(20.0)
        assert not manager.store
        assert os.read(reading, 1) == b""  # nobody has the other end any more

    with Manager(tmp_path / "notify") as manager:
        for key, value in manager.variables.items():
            monkeypatch.setenv(key, value)
        reading, writing = os.pipe2(os.O_NONBLOCK)
        assert Notifier().store(TUN, writing)
        monkeypatch.setattr(module, "take_descriptors", lambda: {TUN: [writing]})
        follow(folder, (LOCK, TUN, UDP), work, notify="")
        os.close(reading)


def test_the_lock_names_who_has_taken_over(folder, monkeypatch) -> None:
    def work(succession) -> None:
        succession.take().close()
        succession.lock = os.open(folder.path / "lock", os.O_RDWR)
        monkeypatch.setattr(succession.taker, "confirm", lambda: None)
        (folder.path / "lock").write_text("of the one before")
        assert succession.confirm() == succession.lock
        assert (folder.path / "lock").read_text() == f"{os.getpid()}\n"

    follow(folder, (LOCK, TUN, UDP), work)


def test_an_estate_that_lacks_something_is_refused(folder) -> None:
    def work(succession) -> None:
        with pytest.raises(NodeError, match="did not hand over its tun"):
            succession.take()

    follow(folder, (LOCK, UDP), work)


def test_what_descriptors_were_made_for_is_said() -> None:
    here = hello_for(CONFIG, NODE)
    for changes in (
        {"listen": Endpoint("127.0.0.1", 1)},
        {"tun": "other0"},
        {"lanes": 2},
        {"tun_offload": ()},
    ):
        why_not = here.why_not(hello_for(replace(CONFIG, **changes), NODE))
        assert why_not is not None
        assert why_not.code == "other-settings"
    assert here.why_not(hello_for(replace(CONFIG, log_level="debug"), NODE)) is None
