"""Tests of overlay.catalog.lapses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overlay.catalog.lapses import Lapses
from overlay.catalog.records import NodeRecord, PodEntry
from overlay.complaints import Complaint
from overlay.faults import Fault
from overlay.types import BlockIndex, Endpoint, Prefix
from tests.support.clusters import WALL, YEAR, make_cluster, make_identity

CLUSTER = make_cluster()
NODE, OTHER = make_identity(1, CLUSTER), make_identity(2, CLUSTER)
END = NODE.certificate.not_after
BLOCK = BlockIndex(5)


def record(*, left: bool = False, routes: tuple[Prefix, ...] = ()) -> NodeRecord:
    if left:
        return NodeRecord(NODE.certificate, 7, left=True)
    return NodeRecord(
        NODE.certificate,
        7,
        endpoints=(Endpoint("192.0.2.1", 7777),),
        blocks_in_use=(BLOCK,),
        free_blocks=3,
        pods=(PodEntry("web", BLOCK, 2, WALL),),
        software="1",
        is_authority=True,
        removals=b"removals",
        conflict=True,
        resumed=6,
        complaints=(Complaint(OTHER.node, Fault.FORGED_RECORD),),
        routes=routes,
        body=b"body",
    )


def at(wall: float, local: NodeRecord | None = None) -> Lapses:
    lapses = Lapses(None if local is None else local.node)
    lapses.tell(wall)
    return lapses


@pytest.mark.parametrize("wall", [WALL - YEAR, WALL, END - 1])
def test_all_of_a_record_is_in_effect_until_its_certificate_ends(wall: float) -> None:
    whole = record()
    assert at(wall).in_effect(whole) is whole


def test_before_a_time_is_told_nothing_has_ended() -> None:
    lapses = Lapses(None)
    lapses.tell(None)
    whole = record()
    assert lapses.in_effect(whole) is whole


def test_what_is_left_says_who_it_is_and_binds_its_node() -> None:
    whole = record()
    left = at(END).in_effect(whole)
    gone = {"endpoints": (), "blocks_in_use": (), "pods": (), "complaints": (), "routes": ()}
    assert left == replace(whole, **gone, free_blocks=0, is_authority=False)
    assert left.body == whole.body, "or an item of the same version might take its place"
    assert left.whole is whole


def test_a_tombstone_and_the_node_s_own_record_stay_in_effect() -> None:
    gone, own = record(left=True), record()
    assert at(END).in_effect(gone) is gone
    assert at(END, local=own).in_effect(own) is own


def test_time_turns_records_once_and_back() -> None:
    lapses, whole = at(WALL), record()
    held = [lapses.in_effect(whole)]
    assert lapses.turned(held, END - 1) == []
    held = lapses.turned(held, END)
    assert [one.whole for one in held] == [whole]
    assert lapses.turned(held, END + 5) == []
    back = lapses.turned(held, END - 1)
    assert back == [whole]
    assert back[0] is whole
    assert [one.whole for one in lapses.turned(back, END)] == [whole]


def test_one_that_came_when_it_had_ended_is_turned_back_by_the_clock() -> None:
    lapses, whole = at(END), record()
    assert lapses.turned([lapses.in_effect(whole)], END - 1) == [whole]
