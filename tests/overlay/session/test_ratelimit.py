"""Turns: how many there are, for whom, and that no table grows without end."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from overlay.session import ratelimit
from overlay.session.ratelimit import (
    CALM,
    MEMBERS_LIMIT,
    LoadMeter,
    RateLimit,
    Share,
    network_of,
    source_of,
)
from overlay.types import NodeId


def member(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


def test_load_begins_at_once_above_the_limit_and_ends_after_calm_seconds():
    meter = LoadMeter(4)
    assert [meter.arrived(0.1 * step) for step in range(6)] == [False] * 4 + [True] * 2
    assert meter.look(1.0) is True
    assert (meter.loaded, meter.rate) == (True, 6)
    assert [meter.look(float(second)) for second in range(2, 8)] == [True] * 4 + [False] * 2


def test_half_as_many_as_begin_a_load_do_not_keep_it_and_more_do():
    for count, lasts in ((2, False), (3, True)):
        meter = LoadMeter(4)
        for _ in range(5):
            meter.arrived(0.0)
        for second in range(1, CALM + 3):
            for _ in range(count):
                meter.arrived(float(second))
        assert meter.loaded is lasts


def test_sources_and_networks_are_cut_out_of_both_families():
    assert source_of("192.0.2.1") != source_of("192.0.2.2")
    assert source_of("2001:db8::1") == source_of("2001:db8::ffff:ffff:ffff:ffff")
    assert source_of("2001:db8::1") != source_of("2001:db8:0:1::1")
    assert network_of("10.20.1.2") == network_of("10.20.200.1") != network_of("10.21.1.2")
    assert network_of("2001:db8:5::1") == network_of("2001:db8:5:ffff::1")
    assert network_of("2001:db8:5::1") != network_of("2001:db8:6::1")


HOSTS = st.builds("{}.{}.0.{}".format, *[st.integers(1, 3)] * 3)


@given(st.lists(st.tuples(st.floats(0, 0.2), HOSTS), max_size=80))
def test_no_second_has_more_turns_than_it_should_for_anybody(arrivals):
    share = Share(7, per_source=2, per_network=4)
    now, taken = 0.0, Counter()
    for wait, host in arrivals:
        now += wait
        had = share.has_one(host, now)
        assert share.take(host, now) is had
        share.check_invariants()
        second = int(now)
        full = (
            taken[second] >= 7
            or taken[second, source_of(host)] >= 2
            or taken[second, "net", network_of(host)] >= 4
        )
        assert had is not full
        if had:
            taken.update([second, (second, source_of(host)), (second, "net", network_of(host))])


def test_who_failed_has_no_fair_turn_until_a_minute_is_over():
    limit = RateLimit(0)
    limit.meter.arrived(0.0)
    limit._any_turns = Share(0, per_source=0, per_network=0)
    assert limit.handshake("192.0.2.1", 0.0)
    limit.failed("192.0.2.1", 0.0)
    assert not limit.handshake("192.0.2.1", 59.9)
    assert limit.handshake("192.0.2.2", 59.9)
    assert limit.handshake("192.0.2.1", 60.0)


def test_a_member_has_its_turns_though_its_address_has_failed():
    limit = RateLimit(0)
    limit._any_turns = Share(0, per_source=0, per_network=0)
    limit.remember(member(1), "192.0.2.1")
    limit.failed("192.0.2.1", 0.0)
    assert [limit.handshake("192.0.2.1", 0.0) for _ in range(11)] == [True] * 10 + [False]


def test_a_member_with_many_addresses_pushes_no_other_out_and_keeps_its_last_one():
    limit = RateLimit(0)
    limit._any_turns = limit._fair_turns = Share(0, per_source=0, per_network=0)
    limit.remember(member(1), "192.0.2.1")
    for number in range(MEMBERS_LIMIT + 1):
        limit.remember(member(2), f"2001:db8::{number:x}")
    limit.check_invariants()
    assert limit.handshake("192.0.2.1", 0.0)
    assert limit.handshake(f"2001:db8::{MEMBERS_LIMIT:x}", 0.0)
    assert not limit.handshake("2001:db8::1", 0.0)


def test_members_at_one_address_keep_it_while_one_of_them_is_there():
    limit = RateLimit(0)
    limit._any_turns = limit._fair_turns = Share(0, per_source=0, per_network=0)
    for number in (1, 2):
        limit.remember(member(number), "192.0.2.1")
    limit.remember(member(1), "198.51.100.1")
    assert limit.handshake("192.0.2.1", 0.0)
    limit.remember(member(2), "198.51.100.1")
    assert not limit.handshake("192.0.2.1", 0.0)
    limit.check_invariants()


def test_tables_of_sources_are_bounded_swept_and_emptied_after_the_load(monkeypatch):
    monkeypatch.setattr(ratelimit, "FAILED_LIMIT", 10)
    monkeypatch.setattr(ratelimit, "MEMBERS_LIMIT", 10)
    limit = RateLimit(0)
    for number in range(30):
        limit.meter.arrived(float(number))
        limit.failed(f"192.0.2.{number}", float(number))
        limit.remember(member(number % 15), f"192.0.2.{number % 15}")
        limit.check_invariants()
    assert len(limit._failed) == 10
    limit.meter.arrived(85.0)
    limit.look(85.0)
    assert len(limit._failed) == 4, "what failed in second 25 and before is forgotten"
    limit.look(85.0 + CALM + 1)
    assert len(limit._failed) == 0
    assert limit.handshake("192.0.2.5", 0.0), "of the last ten members"


def test_nobody_is_hopeless_without_a_load_or_while_a_turn_is_left():
    limit = RateLimit(0)
    host, other = "192.0.2.1", "198.51.100.1"
    for shows, take in ((False, limit.cookie), (True, limit.handshake)):
        assert not limit.is_hopeless(host, 0.0, shows=shows)
        limit.meter.arrived(0.0)
        while not limit.is_hopeless(host, 0.0, shows=shows):
            assert take(host, 0.0)
        assert not take(host, 0.0)
        assert not limit.is_hopeless(other, 0.0, shows=shows), "has fair turns"
        assert not limit.is_hopeless(host, 1.0, shows=shows)
        limit.meter.loaded = False
    limit.meter.arrived(0.0)
    limit.remember(member(1), host)
    assert not limit.is_hopeless(host, 0.0, shows=True), "has the turns of a member"


def test_who_has_failed_is_hopeless_when_only_fair_turns_are_left():
    limit = RateLimit(0)
    limit.meter.arrived(0.0)
    limit._any_turns = Share(0, per_source=0, per_network=0)
    assert not limit.is_hopeless("192.0.2.1", 0.0, shows=True)
    limit.failed("192.0.2.1", 0.0)
    assert limit.is_hopeless("192.0.2.1", 0.0, shows=True)
    assert not limit.is_hopeless("192.0.2.2", 0.0, shows=True)
