"""Tests of overlay.allowance: floods are cut off, each member alone, and rates are as written."""

from __future__ import annotations

from typing import get_args

import pytest

from overlay.allowance import _KIND_OF, AHEAD, LIES, RATES, Allowances, Kind
from overlay.types import NodeId
from overlay.wire.control import encode, number_of
from overlay.wire.messages import BlockRequest, Delta, Message, Probe, Summary
from tests.overlay.test_protocol_document import tables

A, B = (NodeId(bytes([number] * 32)) for number in (1, 2))
PROBE, SUMMARY = encode(Probe(7)), encode(Summary(bytes(8), 1, bytes(8)))


def said(allowances: Allowances, message: bytes, each: float, until: float) -> int:
    """How many of messages that come every `each` seconds are heard."""
    times = [index * each for index in range(int(until / each))]
    return sum(allowances.spend(A, message, at) is None for at in times)


@pytest.mark.parametrize("message", [PROBE, SUMMARY, encode(BlockRequest(1))])
def test_a_flood_is_cut_down_to_its_rate(message: bytes) -> None:
    kind = _KIND_OF[message[1]]
    rate = RATES[kind].messages
    heard = said(Allowances(), message, 0.1 / rate, 30.0)
    assert rate * 30 <= heard <= rate * (30 + AHEAD) + 1


def test_who_keeps_to_the_rate_is_heard_for_ever() -> None:
    each = 1.01 / RATES[Kind.LIVES].messages
    assert said(Allowances(), PROBE, each, 100.0) == int(100.0 / each)


def test_large_messages_cost_more() -> None:
    large = b"\x92\x08" + bytes(50_000)  # a Delta
    heard = said(Allowances(), large, 0.001, 10.0)
    rate = RATES[Kind.ITEMS].size
    assert heard <= rate * (10 + AHEAD) / len(large) + 1


def test_kinds_and_members_owe_for_themselves() -> None:
    allowances = Allowances()
    while allowances.spend(A, SUMMARY, 0.0) is None:
        pass
    assert allowances.spend(A, SUMMARY, 0.0) is Kind.COMPARING
    assert allowances.spend(A, PROBE, 0.0) is None
    assert allowances.spend(B, SUMMARY, 0.0) is None


def test_who_sends_forged_items_is_not_heard_about_items_until_that_is_paid_off() -> None:
    allowances, delta = Allowances(), encode(Delta(()))
    for _ in range(int(AHEAD * LIES) + 1):
        assert allowances.spend(A, delta, 0.0) is None
        allowances.charge(A, LIES, 0.0)
    assert allowances.spend(A, delta, 0.0) is Kind.ITEMS
    assert allowances.spend(A, PROBE, 0.0) is None
    assert allowances.spend(A, delta, 1.0) is None


@pytest.mark.parametrize("message", [b"", b"\x91", b"\x91\xcc", bytes(100)])
def test_what_is_no_message_is_counted_as_well(message: bytes) -> None:
    allowances = Allowances()
    heard = sum(allowances.spend(A, message, 0.0) is None for _ in range(10_000))
    assert heard <= RATES[Kind.PATH].messages * AHEAD + 1


def test_the_protocol_lists_kinds_messages_and_rates() -> None:
    (written,) = tables("How much a member may say")
    rates = {row[0].strip("`"): (float(row[2]), float(row[3])) for row in written}
    assert rates == {str(kind): tuple(rate) for kind, rate in RATES.items()}
    named = {name: row[0].strip("`") for row in written for name in row[1].split(", ")}
    for one in get_args(Message):
        kind = _KIND_OF.get(number_of(one), Kind.PATH)
        assert named.get(one.__name__, "path") == kind
