"""Tests of overlay.snapshots: what a node shows of itself."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest

from overlay.config import Settings
from overlay.sim import World, udp
from overlay.sim.world import EPOCH
from overlay.snapshots import take_local_view
from overlay.types import Endpoint
from overlay.views import NodeState, NodeView, Snapshot
from tests.sim.worlds import settled

BLOCK1, BLOCK1_6 = ip_network("10.244.0.0/24"), ip_network("fd4d:7573:6c69::/64")
BLOCK2, BLOCK2_6 = ip_network("10.244.1.0/24"), ip_network("fd4d:7573:6c69:1::/64")


def pair(**settings: object) -> World:
    """Two nodes with a pod each that everybody knows."""
    world = settled(2, **settings)
    world["node1"].add_pod("web")
    world["node2"].add_pod("db")
    world.run(world.now + 5.0)
    return world


def view_of(snapshot: Snapshot, name: str) -> NodeView:
    (view,) = [node for node in snapshot.nodes if node.name == name]
    return view


def codes(world: World, name: str) -> list[str]:
    return [problem.code for problem in world[name].snapshot().problems]


def test_a_node_shows_who_and_where_it_is() -> None:
    shown = pair()["node1"].snapshot()
    assert (shown.name, len(shown.cluster)) == ("node1", 16)
    assert (shown.cidr, shown.cidr6) == (
        ip_network("10.244.0.0/16"),
        ip_network("fd4d:7573:6c69::/48"),
    )
    assert shown.address == IPv4Address("10.244.0.1")
    assert shown.address6 == IPv6Address("fd4d:7573:6c69::1")
    assert shown.own_prefixes == (BLOCK1, BLOCK1_6)
    assert shown.problems == ()


def test_members_are_shown_with_state_addresses_and_path() -> None:
    world = pair()
    shown = world["node1"].snapshot()
    assert [node.name for node in shown.nodes] == ["node1", "node2"]
    own, other = shown.nodes
    assert (own.local, own.path, own.seen, own.rtt) == (True, "local", 0.0, None)
    assert (own.state, own.pods, own.version) == (NodeState.READY, 1, "simulated")
    assert own.endpoint == world["node1"].endpoint
    assert other.id == world["node2"].membership.identity.node
    assert (other.local, other.path, other.state) == (False, "direct", NodeState.READY)
    assert (other.address, other.blocks, other.pods) == (IPv4Address("10.244.1.1"), (BLOCK2,), 1)
    assert other.address6 == IPv6Address("fd4d:7573:6c69:1::1")
    assert other.endpoint == world["node2"].endpoint
    assert other.rtt == pytest.approx(0.02, abs=0.005)
    assert other.loss == 0.0
    assert 0.0 <= other.seen < 3.0


def test_pods_of_all_nodes_are_shown_and_namespaces_only_of_ones_own() -> None:
    db, web = pair()["node1"].snapshot().pods[::-1]
    assert (web.node, web.name, web.local, web.netns) == ("node1", "web", True, "/run/netns/web")
    assert (db.node, db.name, db.local, db.netns) == ("node2", "db", False, "")
    assert (web.address, db.address) == (IPv4Address("10.244.0.2"), IPv4Address("10.244.1.2"))
    assert db.address6 == IPv6Address("fd4d:7573:6c69:1::2")
    assert (web.state, db.state) == ("ready", "ready")
    assert EPOCH <= db.since <= EPOCH + 60


def test_pods_of_a_silent_node_have_its_state() -> None:
    world = pair()
    world.crash("node2")
    world.run(world.now + 3.0)
    assert [pod.state for pod in world["node1"].snapshot().pods] == ["ready", "suspect"]


def test_every_block_in_use_is_a_route() -> None:
    world = pair()
    shown = {route.prefix: route for route in world["node1"].snapshot().routes}
    assert set(shown) == {BLOCK1, BLOCK1_6, BLOCK2, BLOCK2_6}
    assert {route.origin for route in shown.values()} == {"block"}
    assert (shown[BLOCK2].node, shown[BLOCK2].via) == ("node2", world["node2"].endpoint)
    assert (shown[BLOCK1].node, shown[BLOCK1].via) == ("node1", None)
    assert 0.0 < shown[BLOCK2].since <= world.now


@pytest.mark.parametrize(("aes", "cipher"), [(True, "aes-256-gcm"), (False, "chacha20-poly1305")])
def test_a_session_is_shown_with_cipher_path_mtu_and_traffic(aes: bool, cipher: str) -> None:
    world = pair(settings=Settings(prefer_aes=aes))
    (before,) = world["node1"].snapshot().sessions
    assert (before.node, before.endpoint) == ("node2", world["node2"].endpoint)
    assert (before.cipher, before.mtu, before.drops) == (cipher, 1280, {})
    assert before.mtu_state == "base"
    assert 0.0 < before.established < world.now
    assert 0.0 < before.rekeyed < world.now
    assert 0 < before.tx_bytes < before.rx_bytes * 2
    web, db = world["node1"].snapshot().pods
    world.send_packet("node1", udp(web.address, db.address, bytes(1000)))
    world.run(world.now + 0.1)
    (after,) = world["node1"].snapshot().sessions
    (there,) = world["node2"].snapshot().sessions
    assert after.tx_bytes - before.tx_bytes > 1000
    assert (after.mtu, after.mtu_state) == (1500, "settled")
    assert there.rx_bytes > 1000


def test_what_is_lost_on_a_session_is_shown_there() -> None:
    world = pair(check=False)
    web, db = world["node1"].snapshot().pods
    # node2 takes its pod away, and the route with it, before node1 hears of it.
    world["node2"].engine.parts.routes.replace([], world.now)
    world["node2"].engine.parts.inbound.forget_flows()
    world.send_packet("node1", udp(web.address, db.address, b"?"))
    world.run(world.now + 0.05)
    (session,) = world["node2"].snapshot().sessions
    assert session.drops == {"spoofed_source": 1}


def test_blocks_are_shown_with_owner_state_and_pods() -> None:
    first, second, *rest = pair()["node1"].snapshot().blocks
    assert (first.prefix, first.prefix6, first.node) == (BLOCK1, BLOCK1_6, "node1")
    assert (first.state, first.pods, first.blocks) == ("in-use", 1, 1)
    assert (second.prefix, second.node, second.state) == (BLOCK2, "node2", "in-use")
    assert {(block.node, block.state) for block in rest} == {("node1", "free")}
    assert sum(block.blocks for block in rest) == 254


def test_a_cluster_without_ipv6_shows_none() -> None:
    shown = pair(cidr6=None)["node1"].snapshot()
    assert (shown.cidr6, shown.address6) == (None, None)
    assert shown.own_prefixes == (BLOCK1,)
    assert all(pod.address6 is None for pod in shown.pods)
    assert all(node.address6 is None for node in shown.nodes)


def test_a_snapshot_does_not_change_afterwards() -> None:
    world = pair()
    shown = world["node1"].snapshot()
    text = repr(shown)
    world["node1"].add_pod("more")
    world.run(world.now + 10.0)
    assert repr(shown) == text


# -- problems ----------------------------------------------------------------------------------


def test_a_node_without_a_block_says_so_until_it_has_one() -> None:
    world = World(4)
    world.add_node("node2")
    assert codes(world, "node2") == ["no-block", "node-suspect"]
    shown = world["node2"].snapshot()
    assert (shown.address, shown.address6, shown.own_prefixes) == (None, None, ())
    assert view_of(shown, "node2").address is None
    world.run_until(lambda: codes(world, "node2") == [], timeout=5.0)
    assert world["node2"].snapshot().address is not None


def test_a_silent_member_is_a_problem_until_it_is_heard_again() -> None:
    world = settled(2)
    world.crash("node2")
    world.run(world.now + 3.0)
    assert codes(world, "node1") == ["node-suspect"]
    (problem,) = world["node1"].snapshot().problems
    assert "node2" in problem.what
    assert view_of(world["node1"].snapshot(), "node2").path == "none"
    assert "nothing was heard of it for" in problem.why
    assert str(world["node2"].endpoint) in problem.fix
    world.run(world.now + 5.0)
    assert codes(world, "node1") == ["node-dead"]
    routes = {(route.node, route.stale) for route in world["node1"].snapshot().routes}
    assert routes == {("node1", False), ("node2", True)}
    world.restart("node2")
    world.run_until(lambda: codes(world, "node1") == [], timeout=5.0)


def test_a_suspicion_that_was_refuted_is_counted_where_it_was() -> None:
    world = settled(3)
    assert set(world["node2"].snapshot().gossip.values()) == {0}
    world["node2"].pause()
    world.run_until(lambda: codes(world, "node1") == ["node-suspect"], timeout=5.0)
    world["node2"].resume()
    world.run_until(lambda: codes(world, "node1") == [], timeout=5.0)
    assert world["node2"].snapshot().gossip["refuted"] == 1
    assert world["node1"].snapshot().gossip["refuted"] == 0


def test_a_member_that_was_never_heard_is_described_as_that() -> None:
    world = settled(2)
    world.crash("node2")
    world.restart("node1")
    (problem,) = world["node1"].snapshot().problems
    assert problem.why == "nothing was heard of it since this node started"
    view = view_of(world["node1"].snapshot(), "node2")
    assert (view.path, view.seen, view.loss) == ("none", None, None)


def test_a_disk_that_does_not_write_is_a_problem_until_it_does() -> None:
    world = settled(1)
    world["node1"].disk.fail(3, "no space left on device")
    world["node1"].add_pod("web")
    (problem,) = world["node1"].snapshot().problems
    assert (problem.code, problem.why) == ("not-stored", "no space left on device")
    assert problem.fix
    world.run_until(lambda: codes(world, "node1") == [], timeout=5.0)


def test_a_name_that_was_given_again_means_its_present_bearer_first() -> None:
    world = settled(3)
    world["node2"].leave()
    world.run_until(lambda: world["node2"].left, timeout=5.0)
    heir = world.membership("node2")
    world.add_machine("heir", heir, world["node1"].stored.items)
    world.run_until(lambda: bool(world["heir"].snapshot().own_prefixes), timeout=10.0)
    world.run(world.now + 3.0)
    for name in ("node1", "node3", "heir"):
        bearer, former = [n for n in world[name].snapshot().nodes if n.name == "node2"]
        assert (bearer.id, former.state) == (heir.identity.node, NodeState.LEFT)


def test_a_node_that_left_is_shown_as_that_and_is_no_problem() -> None:
    world = settled(3)
    world["node3"].leave()
    world.run_until(lambda: world["node3"].left, timeout=5.0)
    world.run(world.now + 40.0)
    for name in ("node1", "node2"):
        shown = world[name].snapshot()
        view = view_of(shown, "node3")
        assert (view.state, view.blocks, view.address) == (NodeState.LEFT, (), None)
        assert view.path == "none"
        assert shown.problems == ()
        assert "node3" not in {session.node for session in shown.sessions}


def test_a_member_without_a_known_address_is_described_without_one() -> None:
    world = World(1)
    machine = world.add_node("node2")
    world.run_until(world.converged, timeout=5.0)
    machine.perform(machine.engine.on_endpoints((), world.now))
    world.run(world.now + 3.0)
    world.crash("node2")
    world.restart("node1")
    (problem,) = world["node1"].snapshot().problems
    assert "UDP to it gets through" in problem.fix
    assert view_of(world["node1"].snapshot(), "node2").endpoint is None
    assert isinstance(world["node2"].endpoint, Endpoint)


def test_what_the_kernel_must_follow_is_the_part_of_the_snapshot_that_is_its_own() -> None:
    machine = pair()["node1"]
    whole, local = machine.snapshot(), take_local_view(machine.engine)
    for field in ("cidr", "cidr6", "address", "address6", "own_prefixes"):
        assert getattr(local, field) == getattr(whole, field), field
    assert local.pods == tuple(pod for pod in whole.pods if pod.local)
    assert [pod.name for pod in local.pods] == ["web"]
