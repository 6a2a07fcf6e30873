"""Proofs: a restored or copied state is recognised, shown everywhere, and hands out nothing."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from overlay.conflict import CODE, HEARING, JUST_STARTED, MEETING
from overlay.errors import RefusedError
from overlay.sim import Machine, World, udp
from tests.sim.worlds import LOSSY, blocks_of, knows_pod, settled

Entries = Mapping[bytes, bytes]

IN_TIME = 10.0
"""Seconds within which everybody says so."""

MET = MEETING + 0.5
"""Seconds after which a node that was restarted hands out addresses again."""


def problems(machine: Machine) -> set[str]:
    return {problem.code for problem in machine.snapshot().problems}


def refusal(call, *arguments: object) -> str:
    with pytest.raises(RefusedError) as caught:
        call(*arguments)
    return caught.value.code


def machine_on_copy(world: World, of: str, state: Entries, name: str = "copy") -> Machine:
    """A second machine, elsewhere, that starts on a copy of the state folder of the first."""
    world.inspector.excuse(world[of].membership.identity.node)
    copied = world.add_machine(name, world[of].membership)
    copied.crash()
    copied.disk.restore(state)
    copied.start()
    return copied


def restored(world: World, name: str, state: Entries) -> Machine:
    """The machine itself, its state folder put back."""
    world.restore(name, state)
    return world[name]


def all_say_so(world: World, *machines: Machine) -> bool:
    others = [one for one in world.live() if one not in machines]
    return all(CODE in problems(one) for one in machines) and all(
        "node-identity-conflict" in problems(one) for one in others
    )


def all_know(world: World, pod: str) -> bool:
    return all(knows_pod(world, name, pod) for name in world.machines)


def old_state(world: World, name: str) -> Entries:
    """A backup from before the node's last two starts and the last change of its pods."""
    world[name].add_pod("old")
    backup = dict(world[name].disk.entries)
    world[name].remove_pod("old")
    for number in range(2):
        world.restart(name)
        world.run(world.now + MET)
        world[name].add_pod(f"pod{number}")
    world.run(world.now + 2.0)
    return backup


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("link", [None, LOSSY])
class TestRecognition:
    def test_a_restored_state_is_recognised_everywhere(self, seed, link):
        world = settled(4, seed, link)
        back = restored(world, "node2", old_state(world, "node2"))
        world.run_until(lambda: all_say_so(world, back), timeout=IN_TIME)
        assert refusal(back.add_pod, "new") == CODE

    @pytest.mark.parametrize("restarts", [0, 1])
    def test_a_backup_of_this_very_start_is_recognised_everywhere(self, seed, link, restarts):
        """Its next start counts higher than all that was said since: only members know better."""
        world = settled(4, seed, link)
        backup = dict(world["node2"].disk.entries)
        for _ in range(restarts):
            world.restart("node2")
            world.run(world.now + MET)
        since = world["node2"].add_pod("since")
        world.run_until(lambda: all_know(world, "since"), timeout=10.0)
        back = restored(world, "node2", backup)
        world.run_until(lambda: all_say_so(world, back), timeout=IN_TIME)
        assert refusal(back.add_pod, "new") == CODE
        claim(world, "node2")
        world.run_until(lambda: not problems(back), timeout=IN_TIME)
        assert back.add_pod("new").address != since.address

    def test_a_copy_that_starts_beside_the_original_is_recognised_on_both_sides(self, seed, link):
        world = settled(4, seed, link)
        world.run(world.now + 6.0)
        copy = machine_on_copy(world, "node2", world["node2"].disk.entries)
        world.run_until(lambda: all_say_so(world, copy, world["node2"]), timeout=IN_TIME)
        assert refusal(copy.add_pod, "new") == refusal(world["node2"].add_pod, "new") == CODE

    def test_an_old_backup_that_starts_beside_the_original_is_recognised_on_both_sides(
        self, seed, link
    ):
        world = settled(4, seed, link)
        backup = old_state(world, "node2")
        world.run(world.now + 6.0)
        copy = machine_on_copy(world, "node2", backup)
        world.run_until(lambda: all_say_so(world, copy, world["node2"]), timeout=IN_TIME)
        assert refusal(copy.add_pod, "new") == refusal(world["node2"].add_pod, "new") == CODE


def flows(world: World, source: str, target: str) -> bool:
    """Whether a packet from a pod of one node reaches a pod of another within a second."""
    sender = next(pod for pod in world[source].snapshot().pods if pod.local)
    receiver = next(pod for pod in world[target].snapshot().pods if pod.local)
    before = len(world[target].delivered)
    world.send_packet(source, udp(sender.address, receiver.address, b"through"))
    world.run(world.now + 1.0)
    return len(world[target].delivered) > before


@pytest.mark.parametrize("old", [False, True])
def test_the_pods_of_the_original_stay_reachable(old):
    world = settled(4)
    world["node1"].add_pod("one")
    backup = old_state(world, "node2")
    world.run(world.now + 6.0)
    copy = machine_on_copy(world, "node2", backup if old else world["node2"].disk.entries)
    world.run_until(lambda: all_say_so(world, copy, world["node2"]), timeout=IN_TIME)
    world.run(world.now + 15.0)
    for _ in range(20):
        assert flows(world, "node1", "node2")
        assert flows(world, "node2", "node1")
    assert not copy.delivered[1:]


def test_records_are_not_outdone_for_ever():
    world = settled(4)
    world.run(world.now + 6.0)
    copy = machine_on_copy(world, "node2", world["node2"].disk.entries)
    world.run_until(lambda: all_say_so(world, copy, world["node2"]), timeout=IN_TIME)
    world.run(world.now + 5.0)
    version = world["node1"].engine.parts.catalog.nodes[copy.membership.identity.node].version
    world.run(world.now + 120.0)
    after = world["node1"].engine.parts.catalog.nodes[copy.membership.identity.node].version
    assert after == version


def test_neither_side_gives_a_block_away():
    world = settled(3)
    world.run(world.now + 6.0)
    copy = machine_on_copy(world, "node1", world["node1"].disk.entries)
    world.run_until(lambda: all_say_so(world, copy, world["node1"]), timeout=IN_TIME)
    world.add_node("late", via="node2")
    world.run(world.now + 20.0)
    assert blocks_of(world, "late") == []
    assert refusal(world["node1"].mint_token) == refusal(copy.mint_token) == CODE
    copy.crash()
    claim(world, "node1")
    world.run_until(lambda: blocks_of(world, "late") != [], timeout=10.0)


def claim(world: World, name: str) -> None:
    machine = world[name]
    machine.perform(machine.engine.claim(world.now))


def test_what_is_frozen_stays_so_across_a_restart_until_it_is_claimed():
    world = settled(3)
    back = restored(world, "node2", old_state(world, "node2"))
    world.run_until(lambda: all_say_so(world, back), timeout=IN_TIME)
    world.restart("node2")
    assert CODE in problems(back)
    assert refusal(back.add_pod, "new") == CODE
    world.run(world.now + 3.0)
    claim(world, "node2")
    world.run_until(lambda: no_one_says_so(world), timeout=5.0)
    pod = back.add_pod("new")
    world.run_until(lambda: knows_pod(world, "node1", "new"), timeout=5.0)
    world.restart("node2")
    world.run_until(world.converged, timeout=10.0)
    assert no_one_says_so(world)
    assert pod.address in {view.address for view in world["node3"].snapshot().pods}


def test_addresses_of_pods_that_the_backup_does_not_know_rest_after_a_claim():
    world = settled(3)
    backup = old_state(world, "node2")
    lost = {pod.address for pod in world["node2"].snapshot().pods if pod.local}
    back = restored(world, "node2", backup)
    world.run_until(lambda: all_say_so(world, back), timeout=IN_TIME)
    back.remove_pod("old")
    claim(world, "node2")
    assert back.add_pod("new").address not in lost
    world.run(world.now + 61.0)
    assert lost <= {back.add_pod(f"later{number}").address for number in range(3)}


def no_one_says_so(world: World) -> bool:
    codes = {CODE, "node-identity-conflict"}
    return not any(codes & problems(one) for one in world.live())


def test_after_a_restart_nothing_is_handed_out_before_a_member_could_say_what_is_forgotten():
    world = settled(3)
    backup = dict(world["node2"].disk.entries)
    since = world["node2"].add_pod("since")
    world.run(world.now + 3.0)
    back = restored(world, "node2", backup)
    refused: list[str] = []
    until = world.now + IN_TIME
    while world.now < until:  # whoever tries all the time gets nothing before it is known
        try:
            back.add_pod(f"new{len(refused)}")
        except RefusedError as error:
            refused.append(error.code)
        else:
            pytest.fail(f"given after {world.now:.2f} s, {refused}")
        world.run(world.now + 0.05)
    assert set(refused) == {JUST_STARTED, CODE}
    claim(world, "node2")
    assert back.add_pod("new").address != since.address


def test_a_restarted_node_that_meets_nobody_hands_out_after_a_while():
    world = settled(3)
    world.partition(["node2"], ["node1", "node3"])
    world.restart("node2")
    assert refusal(world["node2"].add_pod, "web") == JUST_STARTED
    world.run(world.now + MEETING)
    world["node2"].add_pod("web")


def test_a_restarted_node_gives_no_block_before_a_member_could_say_what_is_forgotten():
    world = settled(3)
    world.restart("node1")
    began = world.now
    world.add_node("late")
    world.run_until(world.settled, timeout=15.0)
    given = [note.at for note in world.trace.notes("block.given", "node1") if note.at >= began]
    assert given
    assert min(given) >= began + HEARING


def test_who_asks_to_join_a_restarted_authority_is_answered_when_it_has_met_somebody():
    world = settled(3)
    world.restart("node1")
    began = world.now
    world.join("late")
    world.run_until(lambda: "late" in world.machines, timeout=10.0)
    (admitted,) = [note for note in world.trace.notes("node.admitted") if note.at >= began]
    assert admitted.at >= began + HEARING


def test_a_restarted_node_that_knows_nobody_need_not_wait():
    world = settled(1)
    world.restart("node1")
    world["node1"].add_pod("web")


def test_a_claim_while_the_other_machine_still_runs_is_seen_again():
    world = settled(4)
    world.run(world.now + 6.0)
    copy = machine_on_copy(world, "node2", world["node2"].disk.entries)
    world.run_until(lambda: all_say_so(world, copy, world["node2"]), timeout=IN_TIME)
    world.run(world.now + 15.0)
    claim(world, "copy")
    world.run(world.now + IN_TIME)
    assert all_say_so(world, copy, world["node2"])


def test_the_claim_stands_when_the_other_machine_is_off():
    world = settled(4)
    world.run(world.now + 6.0)
    world["node2"].add_pod("web")
    copy = machine_on_copy(world, "node2", world["node2"].disk.entries)
    world.run_until(lambda: all_say_so(world, copy, world["node2"]), timeout=IN_TIME)
    world.crash("node2")
    claim(world, "copy")
    world.run_until(lambda: no_one_says_so(world), timeout=IN_TIME)
    world["node1"].add_pod("one")
    world.run(world.now + 2.0)
    assert flows(world, "node1", "copy")


def test_nothing_is_claimed_where_nothing_is_in_doubt():
    world = settled(2)
    assert refusal(world["node2"].engine.claim, world.now) == "no-conflict"


@pytest.mark.parametrize("seed", range(4))
def test_restarts_crashes_and_moves_are_no_conflict(seed):
    world = settled(4, seed, LOSSY)
    for step in range(12):
        name = f"node{1 + step % 4}"
        machine = world[name]
        if step % 3 == 0:
            world.crash(name)
            world.run(world.now + 0.3 * step)
            world.restart(name)
        elif step % 3 == 1:
            world.move(name)
        else:
            world.crash(name)
            world.move(name)
            world.restart(name)
        machine.perform(machine.engine.on_endpoints((machine.endpoint,), world.now))
        world.run(world.now + 1.7)
        assert no_one_says_so(world)
    world.run_until(world.converged, timeout=30.0)
    world.run(world.now + 130.0)
    assert no_one_says_so(world)
    assert not world.trace.notes("record.overtaken")


def test_a_member_that_lies_about_stamps_freezes_nobody():
    world = settled(3)
    world["node1"].engine.parts.sessions.peers[world["node2"].membership.identity.node].stamp = (
        1 << 60
    )
    world.restart("node2")
    world.run_until(world.converged, timeout=20.0)
    world.run(world.now + 10.0)
    assert no_one_says_so(world)
    world["node2"].add_pod("web")


def test_a_wrong_clock_frees_no_address_early_and_keeps_none_for_long():
    world = settled(1)
    machine = world["node1"]
    first = machine.add_pod("web").address
    machine.remove_pod("web")
    world.crash("node1")
    machine.set_clock(step=-86_400.0)
    machine.start()
    assert machine.add_pod("other").address != first
    world.run(world.now + 61.0)
    assert machine.add_pod("third").address == first


def test_an_address_goes_on_resting_across_a_restart():
    world = settled(1)
    machine = world["node1"]
    first = machine.add_pod("web").address
    machine.remove_pod("web")
    world.run(world.now + 30.0)
    world.restart("node1")
    assert machine.add_pod("other").address != first
    world.run(world.now + 31.5)
    assert machine.add_pod("third").address == first
