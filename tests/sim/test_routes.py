"""Proofs: a member takes packets to outside networks it has consent for, and lies only of itself.

node1  node2   node3 == LAN 192.168.7.0/24, 2001:db8:7::/48, with the authority's consent
          mallory        a member whose engine says whatever it likes
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network

import pytest

from overlay.catalog import outside
from overlay.catalog.records import sign_record, usable_endpoint
from overlay.outside import PATIENCE
from overlay.problems import MAX_REFUSED
from overlay.sim import Machine, World, udp
from overlay.snapshots import take_local_view
from overlay.types import Endpoint, Prefix
from overlay.views import Problem
from overlay.wire.cluster import pack_network
from overlay.wire.control import encode
from overlay.wire.header import TYPE_INITIATION
from overlay.wire.messages import Delta
from overlay.wire.packing import pack, unpack_untrusted
from tests.sim.worlds import settled
from tests.support.engines import drops, give, newly_dropped

LAN, LAN6 = ip_network("192.168.7.0/24"), ip_network("2001:db8:7::/48")
HOST, HOST6 = ip_address("192.168.7.9"), ip_address("2001:db8:7::9")
NAMED_WITHIN = 5.0
"""Virtual seconds."""

_ENDPOINTS, _ROUTES = 6, 14


def member(world: World, name: str, *consents: str | Prefix) -> Machine:
    """A machine whose certificate has these routes."""
    membership = world.membership(name, routes=[ip_network(one) for one in consents])
    return world.add_machine(name, membership, world[world.founder].stored.items)


def advertise(world: World, name: str, *routes: str | Prefix) -> None:
    """As the operator of a node that plays by the rules."""
    machine = world[name]
    wanted = tuple(ip_network(one) for one in routes)
    machine.perform(machine.engine.on_routes(wanted, machine.now))


def lie(
    world: World, name: str, routes: Iterable[str | Prefix], endpoints: Sequence[Endpoint] = ()
) -> None:
    """As a modified member: its record says this whatever its certificate does."""
    machine = world[name]
    world.inspector.excuse(machine.membership.identity.node)
    record = machine.engine.parts.record
    honest = type(record)._packed

    def packed(*arguments: object, **options: object) -> bytes:
        content = unpack_untrusted(honest(record, *arguments, **options), 1 << 20)
        content[_ROUTES] = [pack_network(ip_network(one)) for one in routes]
        if endpoints:
            content[_ENDPOINTS] = list(map(list, endpoints))
        return pack(content)

    record._packed = packed
    machine.perform(machine.engine._settle(machine.engine._steward.own_changed(machine.now), 0))


def lan_world(**settings: object) -> World:
    """Three nodes, of which node3 advertises its LAN, and mallory."""
    world = settled(2, **settings)
    member(world, "node3", LAN, LAN6)
    member(world, "mallory", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24")
    world.run_until(world.converged, timeout=10.0)
    advertise(world, "node3", LAN, LAN6)
    world.run_until(lambda: everybody_routes(world, LAN, "node3"), timeout=3.0)
    return world


def advertised(world: World, name: str) -> dict[Prefix, str]:
    """The outside routes that a node follows."""
    routes = world[name].snapshot().routes
    return {route.prefix: route.node for route in routes if route.origin == "advertised"}


def everybody_routes(world: World, prefix: Prefix, node: str) -> bool:
    return all(advertised(world, one.name).get(prefix) == node for one in world.live())


def table(world: World) -> dict[str, dict[Prefix, str]]:
    """All routes that each honest node follows."""
    return {
        one.name: {route.prefix: route.node for route in one.snapshot().routes}
        for one in world.live()
        if one.name != "mallory"
    }


def named(world: World, code: str, prefix: str, liar: str = "mallory") -> bool:
    """Whether every honest node's status names the liar for that prefix."""
    return all(
        any(about(problem, code, prefix, liar) for problem in one.snapshot().problems)
        for one in world.live()
        if one.name != liar
    )


def about(problem: Problem, code: str, prefix: str, liar: str) -> bool:
    return problem.code == code and prefix in problem.what and liar in problem.what


def misbehaves(world: World, code: str) -> bool:
    """Whether the status of every honest node says that of mallory."""
    return all(
        any(about(one, f"member-{code}", code, "mallory") for one in machine.snapshot().problems)
        for machine in world.live()
        if machine.name != "mallory"
    )


def exchange(world: World, pod: str = "node1") -> None:
    """A pod's packets reach the LAN, and the LAN's the pod, under their own addresses."""
    holdings = world[pod].engine.parts.holdings
    for near, far in ((holdings.address, HOST), (holdings.address6, HOST6)):
        there, back = udp(near, far, b"there"), udp(far, near, b"back")
        world.send_packet(pod, there)
        world.run(world.now + 1.0)
        assert world["node3"].delivered[-1] == there
        world.send_packet("node3", back)
        world.run(world.now + 1.0)
        assert world[pod].delivered[-1] == back


def test_packets_to_a_network_behind_a_node_go_to_that_node_and_back():
    world = lan_world()
    assert everybody_routes(world, LAN6, "node3")
    exchange(world, "node1")
    exchange(world, "node2")
    assert world.settled()
    world.check_invariants()


def test_a_node_names_no_underlay_address_in_what_it_advertises():
    world = lan_world()
    machine = world["node3"]
    inside = Endpoint(str(HOST), 6875)
    machine.perform(machine.engine.on_endpoints((inside, machine.endpoint), machine.now))
    world.run(world.now + 2.0)
    record = world["node1"].engine.parts.catalog.nodes[machine.membership.identity.node]
    assert record.endpoints == (machine.endpoint,)
    assert machine.engine.parts.record.endpoints == (inside, machine.endpoint)
    assert everybody_routes(world, LAN, "node3")
    advertise(world, "node3")
    world.run(world.now + 2.0)
    record = world["node1"].engine.parts.catalog.nodes[machine.membership.identity.node]
    assert record.endpoints == (inside, machine.endpoint)


def test_the_kernel_is_told_whose_networks_are_whose():
    world = lan_world()
    views = {name: take_local_view(world[name].engine) for name in ("node1", "node3")}
    assert (set(views["node1"].outside), views["node1"].own_outside) == ({LAN, LAN6}, ())
    assert (views["node3"].outside, set(views["node3"].own_outside)) == ((), {LAN, LAN6})
    assert world["node1"].snapshot().outside == views["node1"].outside


def test_what_is_withdrawn_is_routed_to_nobody():
    world = lan_world()
    advertise(world, "node3", LAN6)
    world.run_until(lambda: not everybody_routes(world, LAN, "node3"), timeout=1.0)
    world.run(world.now + 1.0)
    assert {name: list(advertised(world, name)) for name in table(world)} == {
        name: [LAN6] for name in table(world)
    }
    before = world["node1"].snapshot().ledger.drops.get("no_route", 0)
    address = world["node1"].engine.parts.holdings.address
    world.send_packet("node1", udp(address, HOST, b"gone"))
    assert world["node1"].snapshot().ledger.drops["no_route"] == before + 1


def test_a_node_that_left_or_was_removed_has_no_outside_routes():
    world = lan_world()
    world["node1"].remove("node3", force=True)
    world.run_until(
        lambda: not any(advertised(world, one.name) for one in world.live() if one.name != "node3"),
        timeout=3.0,
    )


def test_without_consent_a_node_announces_nothing_and_says_so():
    world = settled(3)
    advertise(world, "node3", LAN)
    world.run(world.now + 3.0)
    assert not any(advertised(world, name) for name in world.machines)
    (problem,) = world["node3"].snapshot().problems
    assert (problem.code, str(LAN) in problem.what) == ("route-not-certified", True)
    assert "--route 192.168.7.0/24" in problem.fix
    assert world["node1"].snapshot().problems == ()


def test_after_a_restart_the_routes_are_there_at_once():
    world = lan_world()
    world.run(world.now + 3.0)  # what gossip brought is on the disk by then
    world.restart("node1")
    assert advertised(world, "node1") == {LAN: "node3", LAN6: "node3"}
    world.restart("node3")  # its settings are not on the simulated disk: its operator gives them
    advertise(world, "node3", LAN, LAN6)
    world.run_until(lambda: everybody_routes(world, LAN, "node3"), timeout=3.0)
    world.run_until(world.settled, timeout=10.0)


# -- lies ------------------------------------------------------------------------------------------

LIES = [
    ("a default route", "0.0.0.0/0", "route-forbidden"),
    ("a default route in IPv6", "::/0", "route-forbidden"),
    ("half a default route", "128.0.0.0/1", "route-forbidden"),
    ("the pods of another", "10.244.0.0/24", "route-forbidden"),
    ("one pod of another", "10.244.0.2/32", "route-forbidden"),
    ("the cluster's range in IPv6", "fd4d:7573:6c69::/48", "route-forbidden"),
    ("what is around the cluster's range", "10.0.0.0/8", "route-forbidden"),
    ("another's network in IPv6", str(LAN6), "route-not-certified"),
    ("a part of another's network in IPv6", "2001:db8:7:1::/64", "route-not-certified"),
    ("a network without consent", "203.0.113.0/24", "route-not-certified"),
    ("the underlay, with consent", "198.18.0.0/15", "route-forbidden"),
    ("one member's underlay address", "198.18.0.2/32", "route-forbidden"),
    ("another's network, with wide consent", str(LAN), "route-taken"),
    ("a part of it, with wide consent", "192.168.7.8/29", "route-taken"),
    ("one host of it, with wide consent", "192.168.7.9/32", "route-taken"),
]
each_lie = pytest.mark.parametrize(("what", "prefix", "code"), LIES, ids=[one[0] for one in LIES])


@each_lie
def test_a_lie_changes_no_route_anywhere_and_is_named_everywhere(what, prefix, code):
    world = lan_world()
    before = table(world)
    lie(world, "mallory", [prefix])
    took = world.run_until(lambda: named(world, code, prefix), timeout=NAMED_WITHIN)
    assert took <= NAMED_WITHIN
    assert table(world) == before
    if code != "route-taken" and "underlay" not in what:  # no honest node would say so
        assert misbehaves(world, code)
    assert all(
        one.snapshot().gossip["routes_refused"] > 0 for one in world.live() if one.name != "mallory"
    )
    exchange(world)
    world.run(world.now + 10.0)
    assert table(world) == before
    world.check_invariants()


def test_beside_a_lie_the_rest_of_the_record_holds():
    world = lan_world()
    lie(world, "mallory", ["0.0.0.0/0", "198.51.100.0/24", "::/0"])
    honest = ip_network("198.51.100.0/24")
    world.run_until(lambda: everybody_routes(world, honest, "mallory"), timeout=NAMED_WITHIN)
    assert all(ip_network("0.0.0.0/0") not in routes for routes in table(world).values())


def test_the_status_does_not_grow_with_what_liars_advertise():
    world = lan_world()
    for name in ("mallory", "node2", "node3"):
        lie(world, name, [f"203.0.113.{number}/32" for number in range(8)])
    world.run_until(lambda: len(world["node1"].engine.parts.outside.refused) == 24, NAMED_WITHIN)
    problems = world["node1"].snapshot().problems
    assert sum(one.code == "route-not-certified" for one in problems) == MAX_REFUSED
    (rest,) = [one for one in problems if one.code == "routes-refused"]
    assert rest.what.startswith("8 more")


def test_a_lie_that_is_taken_back_is_no_problem_any_more():
    world = lan_world()
    lie(world, "mallory", ["0.0.0.0/0"])
    world.run_until(lambda: named(world, "route-forbidden", "0.0.0.0/0"), NAMED_WITHIN)
    lie(world, "mallory", [])
    world.run_until(lambda: not named(world, "route-forbidden", "0.0.0.0/0"), timeout=NAMED_WITHIN)


def test_who_claims_addresses_in_anothers_network_ends_no_route_to_it():
    """A node lies about itself only: where it answers counts, not what it says."""
    world = lan_world()
    before = table(world)
    inside = [Endpoint(str(HOST), 6875), Endpoint(str(HOST6), 6875)]
    lie(world, "mallory", [], inside)
    world.run(world.now + NAMED_WITHIN)
    assert table(world) == before
    exchange(world)
    world.run(world.now + 3.0)
    world.restart("node1")  # which has no session then, and must find out again
    world.run_until(lambda: table(world) == before, timeout=PATIENCE + 1.0)
    exchange(world)


def ghost_world() -> tuple[World, list[object]]:
    """A member that nobody ever met says it is on the LAN; and what comes to that address."""
    world = lan_world()
    inside = Endpoint(str(HOST), 6875)
    ghost = sign_record(world.membership("ghost").identity, version=1 << 32, endpoints=[inside])
    told = world["node1"].membership.identity.node
    say = world["node2"].engine.say(told, encode(Delta((ghost,))), world.now)
    world["node2"].perform(say)
    world.run(world.now + PATIENCE + 2.0)
    heard: list[object] = []
    world.underlay.attach("lan host", inside, lambda *read: heard.append(read))
    return world, heard


def test_a_node_never_sends_to_an_underlay_address_inside_of_an_outside_route():
    world, heard = ghost_world()
    assert everybody_routes(world, LAN, "node3")
    world.run(world.now + 30.0)
    assert {read[2] for read in heard} <= {world["node3"].endpoint}  # which is there itself
    for name in ("node1", "node2"):
        problems = {one.code: one for one in world[name].snapshot().problems}
        assert "ghost" in problems["endpoint-in-route"].what
    exchange(world)


def test_a_handshake_from_inside_of_an_outside_route_is_refused():
    world, _ = ghost_world()
    inside = Endpoint(str(HOST), 6875)
    for name, refused in (("node1", 1), ("node3", 0)):  # node3 is there itself
        before = drops(world, name)
        give(world, name, bytes([TYPE_INITIATION]) + bytes(500), inside)
        assert newly_dropped(world, name, before).get("overlay_source", 0) == refused


def test_a_route_ends_when_a_member_answers_from_inside_of_it():
    """As when the authority consented to more than it should have."""
    world = lan_world()
    wide = ip_network("198.18.0.0/15")
    lie(world, "mallory", [wide])
    world.run_until(lambda: named(world, "route-forbidden", str(wide)), NAMED_WITHIN)
    why = [one.why for one in world["node1"].snapshot().problems if str(wide) in one.what]
    assert any("198.18.0." in text for text in why)


# -- the checks are alive --------------------------------------------------------------------------


def without_judgement(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("overlay.outside.judge", lambda offer, cluster: None)


def without_underlay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("overlay.outside.Outside._standing", lambda self, now: {})


def without_order(patch: pytest.MonkeyPatch) -> None:
    def all_of_them(offers):
        return {one.prefix: one.node for one in offers}, []

    patch.setattr("overlay.outside.settle", all_of_them)


def without_reserved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(outside, "reserved_ranges", lambda cluster: ())


def believing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("overlay.outside.Outside._stands", lambda self, offer, node, now: True)


def without_both(patch: pytest.MonkeyPatch) -> None:
    without_judgement(patch)
    without_underlay(patch)


@pytest.mark.parametrize(
    ("take_away", "prefix"),
    [
        (without_judgement, "203.0.113.0/24"),
        (without_judgement, "10.244.0.2/32"),
        (without_both, "0.0.0.0/0"),
        (without_both, "::/0"),
        (without_underlay, "198.18.0.0/15"),
        (without_order, "192.168.7.8/29"),
        (without_order, "192.168.7.0/24"),
    ],
)
def test_without_a_check_its_lies_are_believed(take_away, prefix, monkeypatch):
    """And as the same is asserted of them, the test above fails then."""
    world = lan_world(check=False)  # the invariants would see it at once
    before = table(world)
    lie(world, "mallory", [prefix])
    take_away(monkeypatch)
    world.run(world.now + NAMED_WITHIN)
    assert all(
        routes.get(ip_network(prefix)) == "mallory" != before[name].get(ip_network(prefix))
        for name, routes in table(world).items()
    )


def test_without_a_look_at_addresses_the_overlay_would_carry_itself(monkeypatch):
    monkeypatch.setattr(
        "overlay.outside.Outside.is_underlay",
        lambda self, endpoint: usable_endpoint(endpoint, self._cluster),
    )
    for test in (
        test_a_node_never_sends_to_an_underlay_address_inside_of_an_outside_route,
        test_a_handshake_from_inside_of_an_outside_route_is_refused,
    ):
        with pytest.raises(AssertionError):
            test()


def test_without_doubt_in_claims_a_member_could_end_anothers_route(monkeypatch):
    believing(monkeypatch)
    with pytest.raises(AssertionError):
        test_who_claims_addresses_in_anothers_network_ends_no_route_to_it()
