"""Tests of overlay.catalog.outside: whose outside routes are in force, by consent alone."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.catalog.outside import (
    FORBIDDEN,
    NOT_CERTIFIED,
    SPECIAL,
    TAKEN,
    Cover,
    Heard,
    Offer,
    announced,
    consent_for,
    forbidden,
    judge,
    offer_of,
    outside_of,
    reserved_ranges,
    settle,
)
from overlay.catalog.records import NodeRecord
from overlay.types import Endpoint, NodeId

from .world import CLUSTER, identity

A, B, C = (NodeId(bytes([n]) * 32) for n in (1, 2, 3))
LAN = ip_network("192.168.7.0/24")


def nets(*texts):
    return tuple(ip_network(text) for text in texts)


def offer(prefix, node, *consents):
    return offer_of(node, nets(*consents), ip_network(prefix))


def test_the_consent_is_the_narrowest_prefix_of_the_certificate_around_it():
    routes = nets("192.168.0.0/16", "192.168.7.0/24", "10.0.0.0/8", "2001:db8::/32")
    assert consent_for(routes, LAN) == LAN
    assert consent_for(routes, ip_network("192.168.7.128/25")) == LAN
    assert consent_for(routes, ip_network("192.168.6.0/23")) == ip_network("192.168.0.0/16")
    assert consent_for(routes, ip_network("192.0.0.0/8")) is None
    assert consent_for(routes, ip_network("::a00:0/120")) is None
    assert consent_for((), LAN) is None


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        ("0.0.0.0/0", "default route"),
        ("::/0", "default route"),
        ("0.0.0.0/5", "0.0.0.0/8"),
        ("128.0.0.0/1", "169.254.0.0/16"),
        ("64.0.0.0/2", "127.0.0.0/8"),
        ("2000::/3", "as good as a default route"),
        ("4000::/2", "as good as a default route"),
        ("10.244.0.0/20", "the cluster's own range"),
        ("10.244.3.0/24", "the cluster's own range"),
        ("10.0.0.0/8", "the cluster's own range"),
        ("fd4d:75:0:1::/64", "the cluster's own range"),
        ("fc00::/7", "the cluster's own range"),
        ("127.0.0.1/32", "loopback"),
        ("169.254.169.254/32", "link-local"),
        ("224.0.0.251/32", "groups"),
        ("::1/128", "no network"),
        ("::ffff:0:0/96", "no network"),
        ("fe80::/64", "link-local"),
        ("ff02::/16", "groups"),
    ],
)
def test_what_nobody_may_advertise_is_forbidden_whatever_the_certificate_says(prefix, why):
    assert why in forbidden(ip_network(prefix), CLUSTER)
    refused = judge(offer(prefix, A, prefix), CLUSTER)
    assert (refused.node, refused.code) == (A, FORBIDDEN)


@pytest.mark.parametrize("prefix", ["192.168.7.0/24", "11.0.0.0/8", "64:ff9b::/96", "fd00::/16"])
def test_other_networks_may_be_advertised_with_consent_and_not_without(prefix):
    assert forbidden(ip_network(prefix), CLUSTER) == ""
    assert judge(offer(prefix, A, prefix), CLUSTER) is None
    assert judge(offer(prefix, A, "198.51.100.0/24"), CLUSTER).code == NOT_CERTIFIED


def test_every_ipv4_prefix_as_wide_as_a_quarter_of_all_contains_something_special():
    """So that no length need be forbidden: all halves and quarters are."""
    for prefix in ip_network("0.0.0.0/0").subnets(new_prefix=2):
        assert any(one.version == 4 and one.overlaps(prefix) for one, _ in SPECIAL)


def test_both_ranges_of_the_cluster_are_reserved():
    reserved = [prefix for prefix, _ in reserved_ranges(CLUSTER)]
    assert {CLUSTER.cidr, CLUSTER.cidr6} < set(reserved)


# -- who has it ------------------------------------------------------------------------------------


def test_of_two_with_the_same_consent_the_lower_node_id_has_it_and_the_other_is_told():
    same = [offer(str(LAN), node, str(LAN)) for node in (C, B)]
    force, refused = settle(same)
    assert force == {LAN: B}
    (lost,) = refused
    assert (lost.prefix, lost.node, lost.code, lost.other) == (LAN, C, TAKEN, B)


def test_of_two_with_the_same_prefix_the_narrower_consent_has_it_whatever_the_id():
    wide, narrow = offer(str(LAN), A, "192.168.0.0/16"), offer(str(LAN), C, str(LAN))
    assert settle([wide, narrow])[0] == {LAN: C}


def test_nobody_takes_a_part_of_what_another_advertises():
    part = "192.168.7.128/25"
    for consent in (str(LAN), "192.168.0.0/16"):
        force, refused = settle([offer(str(LAN), B, str(LAN)), offer(part, A, consent)])
        assert force == {LAN: B}
        assert [(one.node, one.code, one.other) for one in refused] == [(A, TAKEN, B)]


def test_the_authority_may_give_a_part_to_another():
    part = ip_network("192.168.7.128/25")
    for consent in (str(part), "192.168.7.128/25"):
        force, refused = settle([offer(str(LAN), B, str(LAN)), offer(str(part), A, consent)])
        assert (force, refused) == ({LAN: B, part: A}, [])


def test_a_wide_route_takes_nothing_from_who_has_the_narrower_consent():
    """Else whoever is allowed much could end the routes of all who are allowed a part of it."""
    wide = offer("192.0.0.0/8", A, "192.0.0.0/8")
    force, refused = settle([wide, offer(str(LAN), C, "192.168.0.0/16")])
    assert (force, refused) == ({ip_network("192.0.0.0/8"): A, LAN: C}, [])


def test_a_node_may_advertise_parts_of_its_own():
    offers = [offer(prefix, A, "192.168.0.0/16") for prefix in ("192.168.0.0/16", str(LAN))]
    force, refused = settle(offers)
    assert set(force.values()) == {A}
    assert (len(force), refused) == (2, [])


PREFIXES = st.one_of(
    st.builds(
        lambda address, length: ip_network((address, length), strict=False),
        st.sampled_from([0xC0A80700, 0xC0A80780, 0xC0A80000, 0x0AF40300, 0xC6336400, 0x7F000000]),
        st.integers(0, 32),
    ),
    st.builds(
        lambda address, length: ip_network((address, length), strict=False),
        st.sampled_from([0x20010DB8 << 96, 0xFD4D0075 << 96, 0xFE80 << 112, 1]),
        st.integers(0, 128),
    ),
)
MEMBERS = st.lists(
    st.tuples(
        st.sampled_from([A, B, C]),
        st.lists(PREFIXES, max_size=4),
        st.lists(PREFIXES, max_size=8, unique=True),
    ),
    max_size=3,
    unique_by=lambda member: member[0],
)


def decided(members):
    offers = [
        offer_of(node, consents, prefix) for node, consents, said in members for prefix in said
    ]
    good = [one for one in offers if judge(one, CLUSTER) is None]
    return offers, good, *settle(good)


@given(MEMBERS)
def test_whatever_is_said_no_route_is_in_force_without_consent(members):
    """The promise, said once more in another way: the addresses, one by one."""
    _, _, force, _ = decided(members)
    may = {node: consents for node, consents, _ in members}
    for prefix, node in force.items():
        ends = prefix.network_address, prefix.broadcast_address
        assert any(
            one.version == prefix.version and all(end in one for end in ends) for one in may[node]
        )
        for reserved, _ in reserved_ranges(CLUSTER):
            assert reserved.version != prefix.version or not reserved.overlaps(prefix)
        assert prefix.prefixlen > 2


@given(MEMBERS)
def test_every_offer_is_in_force_or_refused_once(members):
    offers, good, force, lost = decided(members)
    assert len(force) + len(lost) == len(good) <= len(offers)
    for one in lost:
        assert one.code == TAKEN
        assert force[ip_network(one.why)] == one.other != one.node


@given(MEMBERS, st.randoms(use_true_random=False))
def test_all_choose_the_same_whatever_they_heard_first(members, rng):
    _, good, force, lost = decided(members)
    rng.shuffle(good)
    again, lost_again = settle(good)
    assert (again, sorted(map(str, lost_again))) == (force, sorted(map(str, lost)))


@given(MEMBERS)
def test_a_part_of_anothers_route_is_held_by_narrower_consent_only(members):
    _, good, force, _ = decided(members)
    weight = {(one.prefix, one.node): one.weight for one in good}
    for part, node in force.items():
        for whole, other in force.items():
            inside = part.version == whole.version and part != whole and part.subnet_of(whole)
            if inside and node != other:
                assert weight[part, node] > whole.prefixlen


# -- what follows ----------------------------------------------------------------------------------


@given(st.lists(PREFIXES, max_size=6), st.sampled_from(["192.168.7.200", "2001:db8::1", "::1"]))
def test_a_cover_finds_what_looking_at_each_would(prefixes, host):
    address = ip_address(host)
    slow = {one for one in prefixes if one.version == address.version and address in one}
    assert set(Cover(prefixes).of_host(host)) == slow
    for prefix in prefixes:
        around = {
            one for one in prefixes if one.version == prefix.version and prefix.subnet_of(one)
        }
        found = list(Cover(prefixes).around(prefix))
        assert set(found) == around
        assert found == sorted(found, key=lambda one: one.prefixlen)
    assert bool(Cover(prefixes)) == bool(prefixes)


def test_a_node_announces_what_it_may_of_what_it_wants():
    wanted = nets("192.168.7.0/24", "198.51.100.0/24", "0.0.0.0/0", "2001:db8:1::/48")
    certified = nets("192.168.0.0/16", "2001:db8::/32")
    assert announced(wanted, certified, CLUSTER) == nets("192.168.7.0/24", "2001:db8:1::/48")
    assert announced(wanted, (), CLUSTER) == ()


def test_a_nodes_addresses_in_the_network_behind_it_are_not_its_underlay():
    here, behind, six = (Endpoint(h, 1) for h in ("203.0.113.1", "192.168.7.1", "2001:db8::1"))
    assert outside_of((here, behind, six), nets(str(LAN), "2001:db8::/64")) == (here,)
    assert outside_of((here, behind), ()) == (here, behind)


def test_an_offer_without_consent_weighs_less_than_any_other():
    assert Offer(LAN, A, None).weight < offer(str(LAN), A, "0.0.0.0/0").weight


def test_while_nobody_advertises_anything_nothing_is_heard():
    heard = Heard()
    plain = NodeRecord(identity("alice").certificate, 1, (Endpoint("192.0.2.1", 1),))
    heard.on_record(None, plain)
    heard.on_loss()
    assert heard.generation == 0
    lan = NodeRecord(identity("bob").certificate, 1, routes=(LAN,))
    heard.on_record(None, lan)
    assert heard.generation == 1
    heard.on_record(lan, replace(lan, version=2))
    assert heard.generation == 1, "nothing of it has changed"
    heard.on_record(plain, replace(plain, endpoints=()))
    heard.on_loss()
    assert heard.generation == 3
    heard.on_record(lan, replace(lan, routes=()))
    assert heard.generation == 4, "what is withdrawn is heard"
    heard.on_record(None, plain)
    assert heard.generation == 4
