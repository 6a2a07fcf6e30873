"""Tests of overlay.outside: which outside routes one node follows, and what stands against them."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network

import pytest

from overlay.catalog.catalog import Catalog
from overlay.catalog.outside import FORBIDDEN, NOT_CERTIFIED, TAKEN
from overlay.catalog.records import sign_record
from overlay.complaints import Complaints
from overlay.faults import Fault
from overlay.forwarding.path import PeerPath
from overlay.outside import CALLED, PATIENCE, Outside
from overlay.types import Endpoint, NodeId, Prefix
from tests.overlay.catalog.world import CLUSTER, LIMITS, PLAN, identity, node

LAN = ip_network("192.168.7.0/24")
INSIDE = Endpoint("192.168.7.9", 6875)
ELSEWHERE = Endpoint("203.0.113.5", 6875)
HERE = Endpoint("203.0.113.1", 6875)


class Bench:
    """An `Outside` of node1 with a real catalog, and paths made by hand."""

    def __init__(self) -> None:
        self.catalog = Catalog(CLUSTER, PLAN, LIMITS)
        self.paths: dict[NodeId, PeerPath] = {}
        self.answered: dict[NodeId, tuple[Endpoint, ...]] = {}
        self.here: tuple[Endpoint, ...] = (HERE,)
        self.complaints = Complaints()
        self.now = 0.0
        self._versions = 0
        self.outside = Outside(
            local=node("node1"),
            cluster=CLUSTER,
            catalog=self.catalog,
            paths=self.paths,
            answered=self.answered,
            endpoints=lambda: self.here,
            name_of=lambda _: "somebody",
            complaints=self.complaints,
        )

    def say(
        self,
        name: str,
        *routes: Prefix,
        consents: Sequence[Prefix] = (LAN,),
        at: Sequence[Endpoint] = (),
    ) -> None:
        """A node's record says this from now on."""
        self._versions += 1
        member = identity(name, routes=tuple(consents))
        item = sign_record(member, version=self._versions, routes=routes, endpoints=at)
        assert self.catalog.apply(item)

    def look(self, after: float = 0.0) -> dict[Prefix, NodeId]:
        """What is in force `after` more seconds."""
        self.now += after
        before = dict(self.outside.in_force)
        changes = self.outside.take_changes(self.now)
        for prefix in changes.removed:
            del before[prefix]
        assert {**before, **dict(changes.added)} == self.outside.in_force
        return self.outside.in_force

    def meet(self, name: str, endpoint: Endpoint) -> None:
        """A session with a node, which answers there."""
        path = self.paths.setdefault(node(name), PeerPath(node(name)))
        path.keypair = object()
        path.endpoint = endpoint
        self.answered[node(name)] = (endpoint,)

    def codes(self) -> list[str]:
        return [one.code for one in self.outside.refused]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_certified_network_is_in_force_until_it_is_withdrawn(bench: Bench) -> None:
    bench.say("bob", LAN)
    assert bench.look() == {LAN: node("bob")}
    assert (bench.outside.own(), bench.outside.others()) == ((), (LAN,))
    bench.say("bob")
    assert bench.look() == {}
    assert bench.outside.refused == ()


def test_this_nodes_own_networks_are_kept_apart(bench: Bench) -> None:
    bench.say("node1", LAN)
    bench.look()
    assert (bench.outside.own(), bench.outside.others()) == ((LAN,), ())


def test_what_is_refused_is_counted_reported_and_held_against_who_says_it_once(
    bench: Bench,
) -> None:
    other = ip_network("198.51.100.0/24")
    bench.say("bob", LAN, other, ip_network("0.0.0.0/0"))
    assert bench.look() == {LAN: node("bob")}
    assert sorted(bench.codes()) == [FORBIDDEN, NOT_CERTIFIED]
    assert bench.outside.refusals == {NOT_CERTIFIED: 1, FORBIDDEN: 1}
    told = [one.fields for one in bench.outside.take_reports()]
    assert {(one["prefix"], one["code"]) for one in told} == {
        (str(other), NOT_CERTIFIED),
        ("0.0.0.0/0", FORBIDDEN),
    }
    bench.look(1.0)
    assert bench.outside.take_reports() == []
    assert bench.outside.refusals == {NOT_CERTIFIED: 1, FORBIDDEN: 1}
    faults = {complaint.fault for complaint in bench.complaints.entries}
    assert faults == {Fault.ROUTE_NOT_CERTIFIED, Fault.ROUTE_FORBIDDEN}


def test_a_collision_is_nobodys_fault(bench: Bench) -> None:
    bench.say("bob", LAN)
    bench.say("carol", LAN)
    bench.look()
    assert bench.codes() == [TAKEN]
    bench.say("carol", at=[INSIDE])
    bench.meet("carol", INSIDE)
    bench.look()
    assert bench.codes() == [FORBIDDEN]
    assert not bench.complaints.entries


def test_a_removed_node_has_no_network_any_more(bench: Bench) -> None:
    bench.say("bob", LAN)
    bench.look()
    bench.catalog.nodes.pop(node("bob"))
    bench.catalog.heard.on_loss()
    assert bench.look() == {}


# -- the underlay ----------------------------------------------------------------------------------


def test_a_network_with_this_nodes_own_address_is_refused_at_once(bench: Bench) -> None:
    bench.say("bob", LAN)
    bench.look()
    bench.here = (HERE, INSIDE)
    assert bench.look() == {}
    (refused,) = bench.outside.refused
    assert (refused.code, refused.other) == (FORBIDDEN, node("node1"))
    assert str(INSIDE) in refused.why
    bench.here = (HERE,)
    assert bench.look() == {LAN: node("bob")}


def test_a_node_cannot_be_reached_inside_of_what_it_advertises(bench: Bench) -> None:
    bench.say("bob", LAN, at=[ELSEWHERE, INSIDE])
    bench.meet("bob", ELSEWHERE)
    assert bench.look(2 * PATIENCE) == {}
    bench.say("bob", LAN, at=[ELSEWHERE])
    assert bench.look() == {LAN: node("bob")}
    bench.meet("bob", INSIDE)
    assert bench.look() == {}


def test_a_network_in_which_another_member_answers_is_refused(bench: Bench) -> None:
    bench.say("bob", LAN)
    bench.meet("carol", INSIDE)
    assert bench.look(2 * PATIENCE) == {}
    assert bench.outside.refused[0].other == node("carol")
    bench.paths.clear()  # the session has lapsed; it is there all the same
    assert bench.look() == {}
    bench.meet("carol", ELSEWHERE)
    assert bench.look() == {LAN: node("bob")}


def test_who_answers_elsewhere_is_not_believed_to_be_inside(bench: Bench) -> None:
    bench.say("bob", LAN)
    bench.meet("carol", ELSEWHERE)
    bench.say("carol", at=[INSIDE])
    assert bench.look() == {LAN: node("bob")}
    assert bench.outside.ignored() == ()


def test_who_never_answered_is_called_and_waited_for_and_not_for_ever(bench: Bench) -> None:
    bench.say("bob", LAN)
    bench.say("carol", at=[INSIDE])
    assert bench.look() == {}
    assert bench.outside.to_call() == (node("carol"),)
    assert bench.look(PATIENCE - 0.1) == {}
    assert bench.look(0.1) == {LAN: node("bob")}
    assert bench.outside.to_call() == ()
    assert [claim.endpoint for claim in bench.outside.ignored()] == [INSIDE]


def test_nobody_is_called_for_a_network_that_was_withdrawn(bench: Bench) -> None:
    bench.say("bob", LAN)
    bench.say("carol", at=[INSIDE])
    bench.look()
    bench.say("bob")
    assert bench.look() == {}
    assert bench.outside.to_call() == ()


def test_who_takes_its_word_back_and_says_it_again_is_not_waited_for_again(bench: Bench) -> None:
    bench.say("bob", LAN)
    bench.say("carol", at=[INSIDE])
    bench.look()
    bench.look(PATIENCE)
    bench.say("carol", at=[ELSEWHERE])
    bench.look()
    bench.say("carol", at=[INSIDE._replace(host="192.168.7.10")])
    assert bench.look() == {LAN: node("bob")}


def test_only_what_is_offered_at_present_is_remembered_of_who_never_answered(bench: Bench) -> None:
    """Else a member with a large consent and one that never answers could fill the memory."""
    parts = list(LAN.subnets(new_prefix=28))
    for part in parts:
        bench.say("bob", part)
        bench.say("carol", at=[Endpoint(str(part.network_address + 1), 6875)])
        assert bench.look() == {}
    assert list(bench.outside._doubts) == [(node("carol"), parts[-1])]
    bench.look(PATIENCE)
    bench.say("bob", parts[-1], parts[0])
    assert bench.look() == {parts[-1]: node("bob"), parts[0]: node("bob")}


def test_no_more_than_a_few_are_called_at_a_look(bench: Bench) -> None:
    bench.say("bob", LAN)
    for number in range(CALLED + 2):
        bench.say(f"carol{number}", at=[INSIDE])
    bench.look()
    assert len(bench.outside.to_call()) == CALLED


def test_many_who_never_answer_are_waited_for_together(bench: Bench) -> None:
    bench.say("bob", LAN)
    for number in range(9):
        bench.say(f"carol{number}", at=[INSIDE])
    assert bench.look() == {}
    assert bench.look(PATIENCE) == {LAN: node("bob")}


def test_inside_of_a_network_in_force_there_is_no_underlay(bench: Bench) -> None:
    assert bench.outside.is_underlay(INSIDE)
    bench.say("bob", LAN)
    bench.look()
    assert not bench.outside.is_underlay(INSIDE)
    assert bench.outside.is_underlay(ELSEWHERE)
    assert not bench.outside.is_underlay(Endpoint("10.244.3.1", 1))
    assert not bench.outside.is_underlay(Endpoint("224.0.0.1", 1))


def test_what_is_behind_this_node_it_reaches_without_the_overlay(bench: Bench) -> None:
    bench.here = (HERE, INSIDE)
    bench.say("node1", LAN)
    bench.meet("carol", INSIDE)
    assert bench.look() == {LAN: node("node1")}
    assert bench.outside.is_underlay(INSIDE)


def test_a_node_may_send_from_what_it_advertises_with_consent_in_force_or_not(
    bench: Bench,
) -> None:
    bench.here = (INSIDE,)
    bench.say("bob", LAN, ip_network("198.51.100.0/24"))
    assert bench.look() == {}
    assert bench.outside.is_offered(node("bob"), 4, 0xC0A80709)
    assert not bench.outside.is_offered(node("bob"), 6, 0xC0A80709)
    assert not bench.outside.is_offered(node("bob"), 4, 0xC6336401)
    assert not bench.outside.is_offered(node("carol"), 4, 0xC0A80709)


# -- wishes ----------------------------------------------------------------------------------------


def test_what_is_wanted_and_not_announced_is_shown_with_the_reason(bench: Bench) -> None:
    wanted = [LAN, ip_network("198.51.100.0/24"), ip_network("10.244.0.0/16")]
    found = list(bench.outside.unannounced(wanted, (LAN,)))
    assert [(str(one.prefix), one.code, one.node) for one in found] == [
        ("198.51.100.0/24", NOT_CERTIFIED, node("node1")),
        ("10.244.0.0/16", FORBIDDEN, node("node1")),
    ]
