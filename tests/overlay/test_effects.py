from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import get_args

import pytest

from overlay.effects import (
    BenchAnswered,
    BenchAsked,
    BenchEnded,
    Effect,
    FactsAsked,
    FactsTold,
    Left,
    NetworkChanged,
    Persist,
    ProbeAnswered,
    RemovalShown,
    Renewed,
    Report,
    SendControl,
    SendDatagram,
    SessionDown,
    SessionUp,
    SetOffload,
    StampRefused,
    TellDaemon,
    TellLane,
)
from overlay.types import Endpoint, NodeId

NODE = NodeId(bytes(32))
ENDPOINT = Endpoint("192.0.2.1", 1)


def examples() -> list[Effect]:
    """One of each; made anew, so that equality is by value."""
    return [
        SendDatagram(ENDPOINT, b"datagram"),
        SetOffload("udp_gso", on=False, endpoint=ENDPOINT),
        SendControl(NODE, b"message"),
        Persist(((b"key", b"value"), (b"gone", None))),
        Renewed(b"certificate"),
        SessionUp(NODE, ENDPOINT),
        SessionDown(NODE, "it is silent"),
        StampRefused(NODE),
        RemovalShown(NODE, b"proof"),
        NetworkChanged(),
        ProbeAnswered(NODE, 1, 0.5),
        Left(2),
        BenchAsked(NODE, 1, bytes(4), b"", 30),
        BenchAnswered(NODE, 1, bytes(32), 1024, 1025),
        BenchEnded(NODE, 1),
        FactsAsked(NODE, 1),
        FactsTold(NODE, 1, "{}"),
        TellLane(1, b"order"),
        TellDaemon(b"report"),
        Report("session.established", {"peer": "00"}),
    ]


def test_lists_of_effects_compare_by_value():
    assert examples() == examples()
    assert SendDatagram(ENDPOINT, b"a") != SendDatagram(ENDPOINT, b"b")


def test_the_union_names_every_effect():
    assert {type(effect) for effect in examples()} == set(get_args(Effect))


@pytest.mark.parametrize("effect", examples(), ids=lambda effect: type(effect).__name__)
def test_an_effect_cannot_be_changed_after_it_was_decided(effect):
    assert not hasattr(effect, "__dict__")
    for field in fields(effect):
        with pytest.raises(FrozenInstanceError):
            setattr(effect, field.name, None)


def test_a_datagram_is_one_datagram_unless_it_says_otherwise():
    assert SendDatagram(ENDPOINT, b"datagram").segment_size == 0


def test_reports_do_not_share_their_fields():
    assert Report("a").fields == {}
    assert Report("a").fields is not Report("a").fields
