"""Proofs: what crashes, lost grants, full disks and departures do not break."""

from __future__ import annotations

from ipaddress import IPv4Network

from overlay.config import Timing
from overlay.effects import Left
from overlay.sim import Link, Machine, World, udp
from overlay.sim.world import EPOCH
from overlay.views import NodeState
from tests.sim.worlds import LOSSY, blocks_of, knows_pod, routes_to, settled

RESTED = Timing().quarantine + 20.0
"""Seconds until a block that came back is another's, at most."""


def test_a_crashed_node_comes_back_with_its_identity_block_and_pods():
    world = settled(4)
    pod = world["node3"].add_pod("web")
    before = world["node3"].snapshot()
    world.run(world.now + 0.5)
    world.crash("node3")
    world.run(world.now + 3.0)
    world.restart("node3")
    after = world["node3"].snapshot()
    assert after.own_prefixes == before.own_prefixes
    assert (after.address, after.address6) == (before.address, before.address6)
    assert [(p.name, p.address) for p in after.pods if p.local] == [("web", pod.address)]
    world.run_until(world.converged, timeout=5.0)
    ids = {node.id for node in world["node1"].snapshot().nodes if node.name == "node3"}
    assert ids == {world["node3"].membership.identity.node}
    world.check_invariants()


def test_traffic_flows_again_within_three_seconds_of_a_restart():
    world = settled(3, link=LOSSY)
    one, two = world["node2"].add_pod("one"), world["node3"].add_pod("two")
    world.run(world.now + 1.0)
    world.crash("node3")
    world.run(world.now + 4.0)
    world.restart("node3")
    began = world.now

    def arrived() -> bool:
        world.send_packet("node2", udp(one.address, two.address, b"again"))
        return any(packet[28:] == b"again" for packet in world["node3"].delivered)

    assert world.run_until(arrived, timeout=3.0) <= 3.0
    assert world.now - began <= 3.0


def test_a_peer_that_restarts_right_behind_its_response_is_found_again():
    world = settled(1)
    newcomer = world.add_node("node2")
    newcomer.pause()
    world.run(world.now + 0.5)  # the response waits in the newcomer's socket
    world.restart("node1")
    newcomer.resume()
    # It has a session now that the other end knows nothing of, and never heard a word under it.
    world.run_until(world.converged, timeout=15.0)


def test_every_member_may_crash_at_once_and_the_cluster_comes_back():
    world = settled(5, link=LOSSY)
    blocks = {name: blocks_of(world, name) for name in world.machines}
    for name in world.machines:
        world.crash(name)
    world.run(world.now + 10.0)
    for name in world.machines:
        world.restart(name)
    world.run_until(world.converged, timeout=15.0)
    assert {name: blocks_of(world, name) for name in world.machines} == blocks
    world.check_invariants()


def test_nodes_that_ask_the_same_giver_at_the_same_moment_get_disjoint_blocks():
    world = World(3)
    for number in range(2, 8):
        world.add_node(f"node{number}")
    world.every(0.01, world.check_invariants)
    assert world.run_until(world.converged, timeout=5.0) <= 5.0
    blocks = [block for name in world.machines for block in blocks_of(world, name)]
    assert len(blocks) == len(set(blocks)) == 7


def test_a_grant_whose_datagram_is_lost_is_given_again_not_twice():
    world = settled(1, link=Link(latency=0.2))
    world.add_node("node2")
    world.run_until(lambda: bool(world.trace.notes("block.given")), timeout=5.0)
    # The grant is under way and is lost, and so is all that follows it for a while.
    world.cut("node1", "node2", one_way=True)
    world.run(world.now + 2.0)
    writes = world["node1"].disk.writes
    world.run(world.now + 3.0)  # in which it asks six times more
    assert blocks_of(world, "node2") == []
    assert world["node1"].disk.writes == writes
    world.heal()
    world.run_until(world.converged, timeout=10.0)
    (given,) = world.trace.notes("block.given")
    assert blocks_of(world, "node2") == [given.fields["prefix"]]


def test_a_giver_that_cannot_store_a_grant_announces_nothing_of_it():
    world = settled(1)
    giver = world["node1"]
    giver.disk.fail(10_000)
    world.add_node("node2")
    world.run(world.now + 5.0)
    assert blocks_of(world, "node2") == []
    assert all(block.node == "node1" for block in world["node2"].snapshot().blocks)
    assert world.trace.notes("state.not-stored", "node1")
    assert giver.snapshot().problems
    giver.disk.fail(0)
    world.run_until(world.converged, timeout=15.0)
    world.check_invariants()


def test_a_giver_that_crashes_before_its_disk_is_mended_gives_no_block_twice():
    world = settled(1)
    world["node1"].disk.fail(10_000)
    world.add_node("node2")
    world.run(world.now + 3.0)
    world.crash("node1")
    world["node1"].disk.fail(0)
    world.restart("node1")
    world.add_node("node3")
    world.every(0.05, world.check_invariants)
    world.run_until(world.converged, timeout=15.0)


def test_a_node_that_leaves_hands_its_block_back_and_another_gets_it():
    # Four blocks for four nodes: a fifth can only live where another has left.
    world = settled(4, cidr=IPv4Network("10.244.0.0/22"))
    freed = blocks_of(world, "node3")
    world.add_node("node5")
    world.run(world.now + 5.0)
    assert blocks_of(world, "node5") == []
    world["node3"].leave()
    world.run_until(lambda: world["node3"].left, timeout=5.0)
    world.run_until(world.converged, timeout=RESTED)
    assert blocks_of(world, "node5") == freed
    assert routes_to(world, "node3", seen_by="node1") == []
    states = {node.name: node.state for node in world["node2"].snapshot().nodes}
    assert states.get("node3", NodeState.LEFT) is NodeState.LEFT
    world.check_invariants()


def test_nodes_that_leave_at_once_do_not_hand_their_blocks_to_each_other():
    world = settled(4, cidr=IPv4Network("10.244.0.0/22"))
    for name in ("node2", "node3", "node4"):
        world[name].leave()
    world.run_until(lambda: len(world.live()) == 1, timeout=5.0)
    for name in ("node5", "node6", "node7"):
        world.add_node(name)
    world.run_until(world.converged, timeout=RESTED)
    world.check_invariants()


def test_a_leave_that_cannot_be_stored_is_not_announced():
    world = settled(3)
    world["node2"].disk.fail(2)
    world["node2"].leave()
    world.every(0.05, world.check_invariants)
    world.run(world.now + 0.5)
    assert len(world["node1"].snapshot().routes) == 6
    # What the disk holds is what the others believe, so a crash here is harmless.
    world.crash("node2")
    world["node2"].disk.fail(0)
    world.restart("node2")
    world.run_until(world.converged, timeout=10.0)
    assert len(blocks_of(world, "node2")) == 1


def test_a_leave_is_announced_once_the_disk_is_mended():
    world = settled(3)
    world["node2"].disk.fail(2)
    world["node2"].leave()
    world.run_until(lambda: world["node2"].left, timeout=10.0)
    world.run_until(lambda: not routes_to(world, "node2", seen_by="node3"), timeout=5.0)
    assert NodeState.LEFT is state_of(world, "node2", seen_by="node1")
    world.check_invariants()


def test_a_silent_giver_is_not_the_only_one_that_is_asked():
    world = settled(3)
    # node2 gets to hold a free block: node3 leaves while it cannot reach the founder.
    world.cut("node1", "node3")
    world.run(world.now + 8.0)
    world["node3"].leave()
    world.run_until(lambda: world["node3"].left, timeout=5.0)
    world.run(world.now + 3.0)
    world.crash("node1")
    world.add_node("node4", via="node2")
    world.run_until(lambda: blocks_of(world, "node4") != [], timeout=RESTED)


def test_a_leave_of_which_nobody_heard_goes_on_until_somebody_does():
    world = settled(3)
    (block,) = blocks_of(world, "node3")
    world.partition(["node1", "node2"], ["node3"])
    world["node3"].leave()  # it has not noticed yet that it is alone
    world.run(world.now + 20.0)
    assert not world["node3"].left
    world.heal()
    world.run_until(lambda: world["node3"].left, timeout=15.0)
    world.run_until(lambda: owner_of(world, block, seen_by="node2") == "node1", timeout=5.0)


def test_leaving_twice_loses_no_block():
    world = settled(3)
    (block,) = blocks_of(world, "node3")
    world.partition(["node1", "node2"], ["node3"])
    world["node3"].leave()
    world.run(world.now + 0.1)
    world.heal()
    world["node3"].leave()  # what the first one said is lost
    world.run_until(lambda: world["node3"].left, timeout=5.0)
    assert owner_of(world, block, seen_by="node1") == "node1"


def test_asking_again_after_the_leave_is_over_is_answered_at_once():
    world = settled(2)
    machine = world["node2"]
    leaving = machine.engine
    machine.leave()
    world.run_until(lambda: machine.left, timeout=5.0)
    assert leaving.leave(world.now) == [Left(1)]


def test_a_node_restored_from_a_backup_is_believed_again_when_it_is_claimed():
    world = settled(3)
    world["node2"].add_pod("old")
    backup = dict(world["node2"].disk.entries)
    world["node2"].remove_pod("old")
    for _ in range(3):
        world.restart("node2")
        world.run(world.now + 1.0)
    world.restore("node2", backup)  # a snapshot of the whole machine, say
    world.run(world.now + 5.0)
    assert not knows_pod(world, "node1", "old")  # it waits for a decision (`test_identity`)
    world["node2"].perform(world["node2"].engine.claim(world.now))
    world.run_until(lambda: knows_pod(world, "node1", "old"), timeout=10.0)
    world["node2"].add_pod("new")
    world.run_until(lambda: knows_pod(world, "node1", "new"), timeout=5.0)
    world.run_until(world.converged, timeout=5.0)
    world.restart("node2")  # what it knows now is stored: it is not overtaken again
    world["node2"].remove_pod("old")
    world.run_until(lambda: not knows_pod(world, "node3", "old"), timeout=5.0)


def test_nodes_that_start_with_a_wrong_clock_do_not_forget_each_other():
    world = settled(3)
    for name in world.machines:
        world.crash(name)
    for machine in world.machines.values():
        set_clock(machine, 0.0)  # 1970: no battery, and the time server is still starting
        machine.start()
    world.run(world.now + 5.0)
    for machine in world.machines.values():
        machine.crash()
        set_clock(machine, EPOCH)
        machine.start()
    world.run_until(world.converged, timeout=15.0)
    world.run(world.now + 2.0)
    nodes = world["node2"].snapshot().nodes
    assert {node.name: node.path for node in nodes if not node.local} == {
        "node1": "direct",
        "node3": "direct",
    }


def set_clock(machine: Machine, epoch: float) -> None:
    machine.time.epoch = epoch


def owner_of(world: World, block: str, seen_by: str) -> str:
    """Name of the node that the block of that prefix is titled to."""
    parts = world[seen_by].engine.parts
    index = parts.plan.index_of(IPv4Network(block).network_address)
    return parts.name_of(parts.catalog.titles.owner(index))


def test_a_paused_node_is_suspected_and_welcome_again():
    world = settled(3)
    world["node2"].pause()
    world.run(world.now + 4.0)
    assert state_of(world, "node2", seen_by="node1") is NodeState.SUSPECT
    world["node2"].resume()
    world.run_until(lambda: state_of(world, "node2", "node1") is NodeState.READY, timeout=5.0)
    world.run_until(world.converged, timeout=5.0)
    world.check_invariants()


def test_a_long_cut_is_noticed_and_both_sides_find_each_other_again():
    world = settled(4)
    world.partition(["node1", "node2"], ["node3", "node4"])
    world.run(world.now + 40.0)
    assert state_of(world, "node3", seen_by="node1") is NodeState.DEAD
    assert state_of(world, "node2", seen_by="node1") is NodeState.READY
    world["node4"].add_pod("web")
    world.heal()
    world.run_until(lambda: knows_pod(world, "node1", "web"), timeout=15.0)
    world.run_until(lambda: state_of(world, "node3", "node1") is NodeState.READY, timeout=15.0)
    world.check_invariants()


def state_of(world: World, name: str, seen_by: str) -> NodeState:
    return {node.name: node.state for node in world[seen_by].snapshot().nodes}[name]


def test_a_block_that_arrives_while_the_disk_is_full_is_used_when_it_is_not():
    world = settled(2)
    newcomer = world.add_node("node3")
    newcomer.disk.fail(1)
    newcomer.perform(newcomer.engine.on_endpoints((), world.now))  # something that must be stored
    assert newcomer.engine.not_stored
    holdings = newcomer.engine.parts.holdings
    world.run_until(lambda: bool(holdings.owned()), timeout=5.0)
    assert newcomer.engine.not_stored
    world.run_until(world.converged, timeout=15.0)
