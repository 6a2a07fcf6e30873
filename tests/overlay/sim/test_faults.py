"""Tests of cuts and disks."""

from __future__ import annotations

from overlay.sim import faults
from overlay.sim.faults import CACHE, Cuts, Disk


def test_a_cut_works_both_ways_and_heals_both_ways():
    cuts = Cuts()
    cuts.cut("a", "b")
    assert cuts.severed("a", "b")
    assert cuts.severed("b", "a")
    cuts.heal("b", "a")
    assert not cuts.severed("a", "b")
    assert not cuts.severed("b", "a")


def test_a_one_way_cut_lets_answers_pass():
    cuts = Cuts()
    cuts.cut("a", "b", one_way=True)
    assert cuts.severed("a", "b")
    assert not cuts.severed("b", "a")


def test_a_partition_severs_the_groups_from_each_other_and_nothing_else():
    cuts = Cuts()
    cuts.partition([["a", "b"], ["c", "d"], ["e"]])
    groups = {"a": 1, "b": 1, "c": 2, "d": 2, "e": 3, "f": 0}
    for source, group in groups.items():
        for destination, other in groups.items():
            apart = bool(group and other) and group != other
            assert cuts.severed(source, destination) is apart


def test_heal_all_mends_everything():
    cuts = Cuts()
    cuts.partition([["a"], ["b"], ["c"]])
    cuts.heal_all()
    assert not any(cuts.severed(a, b) for a in "abc" for b in "abc")


OLD = {b"key": b"old", b"other": b"same"}
NEW = [(b"key", b"new"), (b"more", b"1"), (b"other", None)]
AFTER = {b"key": b"new", b"more": b"1"}


def test_a_failing_disk_keeps_the_old_state_and_says_why():
    disk = Disk(OLD)
    disk.fail(2, "read-only file system")
    assert disk.write(NEW) == "read-only file system"
    assert disk.write(NEW) == "read-only file system"
    assert (disk.entries, disk.writes) == (OLD, 0)
    assert disk.write(NEW) is None
    assert (disk.entries, disk.writes) == (AFTER, 1)


def test_a_repaired_disk_writes_again():
    disk = Disk({})
    disk.fail(100)
    disk.fail(0)
    assert disk.write(NEW) is None


def test_a_disk_that_syncs_loses_nothing_with_the_power():
    disk = Disk(OLD)
    disk.write(NEW)
    assert disk.power_loss() == 0
    assert disk.entries == AFTER


def test_without_sync_the_last_transactions_go_with_the_power_and_older_ones_stay():
    disk = Disk({})
    disk.fsync = False
    for number in range(CACHE + 10):
        disk.write([(b"key", b"%d" % number), (b"only %d" % number, b"")])
    assert disk.power_loss() == CACHE
    assert disk.entries == {b"key": b"9"} | {b"only %d" % number: b"" for number in range(10)}
    assert disk.power_loss() == 0


def test_a_sync_covers_what_was_written_before_it():
    disk = Disk(OLD)
    disk.fsync = False
    disk.write(NEW)
    disk.fsync = True
    disk.write([(b"more", b"2")])
    assert disk.power_loss() == 0
    assert disk.entries == {b"key": b"new", b"more": b"2"}


def test_a_restored_disk_is_as_it_was_whatever_happens_to_it_then():
    disk = Disk(OLD)
    backup = dict(disk.entries)
    disk.fsync = False
    disk.write(NEW)
    disk.restore(backup)
    assert disk.power_loss() == 0
    assert disk.entries == OLD
    disk.write(NEW)
    assert backup == OLD


def test_what_is_on_many_disks_is_in_memory_once_and_what_is_not_is_let_go(monkeypatch):
    monkeypatch.setattr(faults, "SHARED", 4)
    monkeypatch.setattr(faults, "_shared", {})
    disks = [Disk({}) for _ in range(3)]
    for number in range(10):
        for disk in disks:
            disk.write([(b"%d" % number, b"value %d" % number)])
    first, *others = [disk.entries[b"9"] for disk in disks]
    assert all(value is first for value in others)
    assert len(faults._shared) == 4
    assert all(len(disk.entries) == 10 for disk in disks)


def test_what_would_survive_a_power_failure_is_known_before_it_happens():
    disk = Disk({b"boot": b"1"})
    assert disk.durable() == {b"boot": b"1"}
    disk.fsync = False
    disk.write([(b"boot", b"2"), (b"left", b"yes")])
    disk.write([(b"boot", b"3")])
    assert disk.durable() == {b"boot": b"1"}
    assert disk.entries == {b"boot": b"3", b"left": b"yes"}
    expected = disk.durable()
    disk.power_loss()
    assert disk.entries == expected
