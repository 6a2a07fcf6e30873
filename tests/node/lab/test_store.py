from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from node.errors import NodeError
from node.lab import store as store_module
from node.lab.store import LabInfo, LabStore
from node.lab.topology import plan

TOPOLOGY = plan("lab", 2, 1, underlay="ipv6", mtu=1400, cidr="10.0.0.0/16")


@pytest.fixture
def store(tmp_path: Path) -> LabStore:
    return LabStore(tmp_path)


def test_a_lab_reads_back_as_it_was_written(store: LabStore) -> None:
    made = store.create(TOPOLOGY, {"MUSLIN_LOOP": "asyncio"})
    assert store.load("lab") == made
    changed = store.save(made, complete=True, cluster="c0ffee", cuts=(("node1", "node2"),))
    assert store.load("lab") == changed
    assert changed == replace(made, complete=True, cluster="c0ffee", cuts=(("node1", "node2"),))
    assert store.names() == ["lab"]


def test_the_description_is_json_that_a_person_can_read(store: LabStore) -> None:
    info = store.create(TOPOLOGY, {})
    text = (info.folder / "lab.json").read_text()
    assert '  "nodes": 2,\n' in text
    assert json.loads(text)["underlay"] == "ipv6"


def test_everything_of_a_node_is_where_its_name_is(store: LabStore) -> None:
    info = LabInfo(TOPOLOGY, store.folder("lab"))
    assert info.state("node1").parent == info.folder
    assert info.socket("node1") == info.state("node1") / "control.sock"
    assert info.log("node1") == info.folder / "node1.log"


def test_a_lab_that_is_not_there_is_answered_with_those_that_are(store: LabStore) -> None:
    with pytest.raises(NodeError) as caught:
        store.load("lab")
    assert (caught.value.code, caught.value.fix) == ("no-lab", "start one with: muslin lab up")
    store.create(replace(TOPOLOGY, name="other"), {})
    with pytest.raises(NodeError) as caught:
        store.load("lab")
    assert caught.value.fix == "there are: other"


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "[]",
        "{}",
        '{"format": 1, "name": "lab"}',
        '{"format": 1, "name": "/", "nodes": 1, "pods": 1}',
        "\x00",
    ],
)
def test_a_damaged_description_is_said_to_be_damaged(store: LabStore, damage: str) -> None:
    info = store.create(TOPOLOGY, {})
    (info.folder / "lab.json").write_text(damage)
    with pytest.raises(NodeError, match="is damaged") as caught:
        store.load("lab")
    assert caught.value.fix == "remove the lab with: muslin lab down --name lab"


def test_a_description_of_another_version_is_not_guessed_at(store: LabStore) -> None:
    info = store.create(TOPOLOGY, {})
    (info.folder / "lab.json").write_text('{"format": 2}')
    with pytest.raises(NodeError, match="another version"):
        store.load("lab")


def test_logs_outlive_the_lab_and_replace_older_ones(store: LabStore) -> None:
    info = store.create(TOPOLOGY, {})
    for text in ("first", "second"):
        info.log("node1").write_text(text)
        kept = store.keep_logs("lab")
    store.remove("lab")
    assert not store.exists("lab")
    assert [(log.name, log.read_text()) for log in kept.iterdir()] == [("node1.log", "second")]


def test_removing_twice_is_fine(store: LabStore) -> None:
    store.create(TOPOLOGY, {})
    store.remove("lab")
    store.remove("lab")
    assert store.names() == []


def test_who_waits_too_long_for_the_lock_is_told(
    store: LabStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "LOCK_PATIENCE", 0.0)
    with store.locked("lab"):
        with pytest.raises(NodeError, match="another command is changing lab lab"):
            store.locked("lab").__enter__()
        with store.locked("other"):
            pass
    with store.locked("lab"):
        pass


def test_the_lock_is_handed_on(store: LabStore) -> None:
    order: list[str] = []

    def second() -> None:
        with store.locked("lab"):
            order.append("second")

    with store.locked("lab"):
        waiting = threading.Thread(target=second)
        waiting.start()
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


def test_the_last_lab_takes_its_folders_along(store: LabStore, tmp_path: Path) -> None:
    root = tmp_path / "deep" / "root"
    other = LabStore(root)
    with other.locked("lab"):
        other.create(TOPOLOGY, {})
    assert (root / "lab" / ".lab.lock").exists()
    with other.locked("lab"):
        other.remove("lab")
    assert not root.exists()


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_not_enough(
    store: LabStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "lab" / ".lab.lock"
    lock = store_module.fcntl.flock
    calls: list[int] = []

    def removed_before(descriptor: int, operation: int) -> None:
        if not calls:
            file.unlink()
        calls.append(descriptor)
        lock(descriptor, operation)

    monkeypatch.setattr(store_module, "LOCK_POLL", 0.0)
    monkeypatch.setattr(store_module.fcntl, "flock", removed_before)
    with store.locked("lab"):
        assert file.exists()
    assert len(calls) == 2


def test_a_lock_file_that_is_removed_and_made_again_locks_only_one(
    store: LabStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "LOCK_POLL", 0.0)
    inside = 0
    most = 0
    count = threading.Lock()

    def enter() -> None:
        nonlocal inside, most
        for _ in range(20):
            with store.locked("lab"):
                with count:
                    inside += 1
                    most = max(most, inside)
                with count:
                    inside -= 1

    workers = [threading.Thread(target=enter) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert most == 1
