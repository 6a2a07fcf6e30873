from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.errors import NodeError
from node.handover.capsule import CAPSULE, TUN, UDP, Capsule
from node.handover.store import CONFIRM_PATIENCE, USED, leave_capsule, read_store
from node.handover.taker import Estate
from node.state import StateFolder
from node.systemd import Notifier
from tests.support.manager import Manager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path / "notify") as manager:
        yield manager


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "node")
    folder.create()
    return folder


def next_start(manager: Manager, folder: StateFolder) -> Estate:
    """What the next process of the service finds."""
    kept = {name: [os.dup(fd) for fd in fds] for name, fds in manager.store.items()}
    return read_store(kept, folder, Notifier(manager.variables))


def leave(manager: Manager, folder: StateFolder, engine: bytes) -> None:
    notifier = Notifier(manager.variables)
    assert leave_capsule(engine, folder, notifier)
    assert notifier.barrier(20.0)


def test_what_one_leaves_the_next_one_has_and_nobody_after_that(manager, folder) -> None:
    leave(manager, folder, b"first")
    assert list(manager.store) == [CAPSULE]
    estate = next_start(manager, folder)
    assert estate.capsule is not None
    assert estate.capsule.engine == b"first"
    assert not manager.store  # forgotten before it was used
    assert next_start(manager, folder).capsule is None


def test_one_follows_the_other(manager, folder) -> None:
    for engine in (b"first", b"second", b"third"):
        leave(manager, folder, engine)
        capsule = next_start(manager, folder).capsule
        assert capsule is not None
        assert capsule.engine == engine


def test_one_that_turns_up_again_is_spent_however_late(manager, folder, caplog) -> None:
    leave(manager, folder, b"first")
    copy = os.dup(manager.store[CAPSULE][0])
    assert next_start(manager, folder).capsule is not None
    for engine in (b"second", b"third"):
        again = read_store({CAPSULE: [os.dup(copy)]}, folder, Notifier(manager.variables))
        assert again.capsule is None
        leave(manager, folder, engine)
        assert next_start(manager, folder).capsule is not None
    assert {line.fields["why"] for line in caplog.records} == {
        "it is not the one behind the last that was used"
    }
    os.close(copy)


def test_one_that_is_later_than_the_next_is_not_believed(manager, folder) -> None:
    """The folder was put back: what was used since then is not known."""
    leave(manager, folder, b"first")
    assert next_start(manager, folder).capsule is not None
    leave(manager, folder, b"second")
    (folder.path / USED).unlink()
    assert next_start(manager, folder).capsule is None


def test_one_that_is_not_read_is_replaced_by_the_next(manager, folder) -> None:
    leave(manager, folder, b"first")
    leave(manager, folder, b"second")
    capsule = next_start(manager, folder).capsule
    assert capsule is not None
    assert capsule.engine == b"second"


def test_of_several_none_is_believed(manager, folder, caplog) -> None:
    handles = [Capsule(engine, 1).seal() for engine in (b"first", b"second")]
    assert read_store({CAPSULE: handles}, folder, Notifier(manager.variables)).capsule is None
    assert [line.fields["why"] for line in caplog.records] == ["there are several"]


@pytest.mark.parametrize("deaf_to", ["FDSTOREREMOVE", "BARRIER"])
def test_without_a_manager_that_confirms_it_is_not_used(tmp_path, folder, monkeypatch, deaf_to):
    """A manager that is deaf to the removal still holds what the next one would find."""
    monkeypatch.setattr("node.handover.store.CONFIRM_PATIENCE", 0.05)
    path = tmp_path / "notify"
    notifier = Notifier({"NOTIFY_SOCKET": str(path)})  # nobody listens there
    handle = Capsule(b"first", 1).seal()
    assert read_store({CAPSULE: [handle]}, folder, notifier).capsule is None
    with Manager(path, deaf_to=frozenset({deaf_to})) as manager:
        leave_it = Notifier(manager.variables)
        leave_capsule(b"second", folder, leave_it)
        manager.said("FDSTORE")
        first = next_start(manager, folder).capsule
        if deaf_to == "BARRIER":  # closed without being acted on counts: the manager has read it
            assert first is not None
        else:
            assert first is not None
            assert next_start(manager, folder).capsule is None  # its number is stored


def test_where_the_number_cannot_be_stored_it_is_not_used(manager, folder, monkeypatch) -> None:
    leave(manager, folder, b"first")
    monkeypatch.setattr(StateFolder, "write_raw", _full)
    assert next_start(manager, folder).capsule is None


@pytest.mark.parametrize("damage", ["unreadable", "no number"])
def test_where_nobody_knows_which_were_used_none_is(manager, folder, caplog, damage: str) -> None:
    leave(manager, folder, b"first")
    copy = os.dup(manager.store[CAPSULE][0])
    assert next_start(manager, folder).capsule is not None
    (folder.path / USED).unlink()
    if damage == "unreadable":
        (folder.path / USED).mkdir()
    else:
        (folder.path / USED).write_bytes(b"\xb2\n")
    again = read_store({CAPSULE: [copy]}, folder, Notifier(manager.variables))
    assert again.capsule is None
    assert "handed-over" in caplog.records[-1].fields["why"]
    with pytest.raises(NodeError, match="handed-over"):
        leave_capsule(b"second", folder, Notifier(manager.variables))


def _full(self: StateFolder, name: str, content: bytes) -> None:
    raise NodeError(f"writing {self.path / name}: no space left on device {len(content)}")


def test_edges_stay_in_the_store_and_what_is_unknown_does_not(manager, folder) -> None:
    notifier = Notifier(manager.variables)
    reading, writing = os.pipe()
    for name in (TUN, UDP, "else"):
        assert notifier.store(name, writing)
    assert notifier.barrier(20.0)
    estate = next_start(manager, folder)
    assert sorted(estate.descriptors) == [TUN, UDP]
    assert notifier.barrier(20.0)
    assert sorted(manager.store) == [TUN, UDP]
    estate.close()
    os.close(reading)
    os.close(writing)


def test_patience_is_shorter_than_what_a_manager_grants_a_start() -> None:
    assert CONFIRM_PATIENCE < 60
