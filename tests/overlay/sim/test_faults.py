"""Tests of cuts and disks."""

from __future__ import annotations

from overlay.sim.faults import Cuts, Disk


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


def test_a_failing_disk_keeps_the_old_state_and_says_why():
    disk = Disk(b"old")
    disk.fail(2, "read-only file system")
    assert disk.write(b"new") == "read-only file system"
    assert disk.write(b"new") == "read-only file system"
    assert (disk.state, disk.writes) == (b"old", 0)
    assert disk.write(b"new") is None
    assert (disk.state, disk.writes) == (b"new", 1)


def test_a_repaired_disk_writes_again():
    disk = Disk(b"old")
    disk.fail(100)
    disk.fail(0)
    assert disk.write(b"new") is None
