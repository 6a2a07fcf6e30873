"""Tests of what a scenario can do to members and to the network between them."""

from __future__ import annotations

import pytest

from overlay.errors import ConfigError
from overlay.sim.acts import ACTS, Partition
from overlay.sim.link import Link
from overlay.sim.outcome import EventSummary, Outcome
from overlay.sim.selection import Selection
from tests.overlay.sim.plays import event, play

SMALL_BLOCKS = "block_prefix = 28"
"""Of 13 pods."""


def of(outcome: Outcome, label: str) -> EventSummary:
    (found,) = (one for one in outcome.events if one.label == label)
    return found


def test_newcomers_come_with_a_token_or_told_about_the_seeds():
    one = play(event(2, "join", count="2", group='"late"') + event(8, "join", token="true"))
    outcome = one.run()
    assert list(one.world.machines) == [f"node{number}" for number in range(1, 8)]
    assert one.groups["late"] == {"node5", "node6"}
    joins = of(outcome, "join")
    assert (joins.times, joins.targets, joins.missing) == (2, 3, ())
    assert len(joins.seconds) == 6 + 7  # all that were there, and the new ones
    assert outcome.agree
    assert one.world.trace.notes("join.admitted", "node7")


def test_members_leave_die_and_return():
    one = play(
        event(2, "leave", nodes='"node2"')
        + event(5, "crash", nodes='"node3"')
        + event(45, "start", nodes='"all"')
        + event(50, "restart", nodes='"node4"'),
        until=60,
    )
    outcome = one.run()
    assert [one.world[name].live for name in ("node2", "node3", "node4")] == [False, True, True]
    assert len(of(outcome, "leave").seconds) >= 3
    crash = of(outcome, "crash")
    assert len(crash.seconds) == 2
    assert crash.seconds[0] > 1.0
    assert of(outcome, "start").targets == 1
    assert len(of(outcome, "restart").seconds) == 3
    assert [summary.missing for summary in outcome.events] == [()] * 5


def test_the_removed_are_known_by_all_and_their_blocks_come_back():
    one = play(
        event(2, "crash", nodes='"node2"') + event(20, "remove", nodes='["node2", "node3"]'),
        until=60,
    )
    outcome = one.run()
    removed = of(outcome, "remove")
    assert (removed.targets, removed.missing) == (2, ())
    assert len(removed.seconds) >= 3
    assert not one.world["node3"].live
    founder = one.world["node1"].snapshot()
    assert {str(node.state) for node in founder.nodes if node.name in ("node2", "node3")} <= {
        "removed"
    }
    assert {block.node for block in founder.blocks} == {"node1", "node4"}
    assert outcome.agree


def test_the_founder_is_never_removed():
    one = play(event(2, "remove", nodes='"all"'), until=30)
    one.run()
    assert [name for name, machine in one.world.machines.items() if machine.live] == ["node1"]


def test_a_loss_of_power_takes_what_a_lying_disk_had_not_kept():
    one = play(
        event(2, "disk", nodes='"node2"', fsync="false")
        + event(3, "pod-add", nodes='"node2"')
        + event(4, "power-loss", nodes='"node2"')
        + event(5, "start", nodes='"node2"'),
        until=10,
    )
    one.run()
    assert one.world.trace.notes("disk.lost", "node2")
    assert not [pod for pod in one.world["node2"].snapshot().pods if pod.local]


def test_pods_come_with_the_lowest_free_numbers_and_go_oldest_first():
    one = play(
        event(2, "pod-add", nodes='"node2"', count="3", name='"web"')
        + event(3, "pod-delete", nodes='"node2"', name='"web"', count="2")
        + event(4, "pod-add", nodes='"node2"', name='"web"')
        + event(5, "pod-delete", nodes='"node2"', name='"we"'),
        until=8,
    )
    outcome = one.run()
    pods = {pod.name for pod in one.world["node1"].snapshot().pods}
    assert pods == {"web1", "web3"}
    assert outcome.refusals == 0


def test_a_route_is_of_a_block_more_and_seen_when_all_have_it():
    one = play(
        event(2, "route", nodes='"node2"')
        + event(6, "route", nodes='"node1"', name='"own"', label='"the founder\'s"')
        + event(10, "route", nodes='"node2"', label='"again"'),
        until=20,
        cluster=SMALL_BLOCKS,
    )
    one.world.run(2.0)
    machine = one.world["node2"]
    assert len(machine.engine.parts.holdings.blocks_in_use) == 1
    assert len(machine.engine.parts.holdings.pods) == 13
    outcome = one.run()
    for label in ("route", "the founder's", "again"):
        seen = of(outcome, label)
        assert (seen.times, seen.targets, seen.missing, len(seen.seconds)) == (1, 1, (), 4)
    assert of(outcome, "route").seconds[0] > 0.0  # it asked for one
    assert of(outcome, "the founder's").seconds[0] == 0.0  # the founder had one
    used = machine.engine.parts.holdings.blocks_in_use
    assert len(used) == 3
    observer = one.world["node4"].engine.parts
    for block in used:
        address = int(observer.plan.prefix4(block).network_address)
        assert observer.routes.lookup4(address) == machine.membership.identity.node
    assert outcome.refusals == 0


def test_a_route_that_nobody_is_told_of_is_missing():
    one = play(
        event(2, "route", nodes='"node1"') + event(2, "partition", groups='["node4", "rest"]'),
        until=10,
        cluster=SMALL_BLOCKS,
    )
    assert of(one.run(), "route").missing == ("node4",)


def test_no_route_comes_where_there_is_no_block():
    one = play(
        event(2, "route", nodes='"node2"'),
        until=12,
        cluster='cidr = "10.0.0.0/26"\n' + SMALL_BLOCKS,
    )
    assert set(of(one.run(), "route").missing) == {"node1", "node2", "node3", "node4"}


def test_a_partition_cuts_and_a_heal_mends():
    one = play(
        event(2, "partition", groups='["node2..node3", "rest"]')
        + event(3, "pod-add", nodes='"node2"')
        + event(10, "heal"),
    )
    cuts = one.world.underlay.cuts
    one.world.run(2.5)
    assert cuts.severed("node2", "node1")
    assert cuts.severed("node4", "node3")
    assert not cuts.severed("node2", "node3")
    outcome = one.run()
    assert not cuts.severed("node2", "node1")
    assert of(outcome, "pod-add").seconds[-1] > 7.0
    assert of(outcome, "heal").missing == ()
    assert outcome.agree


def test_a_partition_may_be_one_way():
    one = play(event(2, "partition", groups='["node1", "rest"]', one_way="true"))
    one.world.run(2.5)
    assert one.world.underlay.cuts.severed("node1", "node2")
    assert not one.world.underlay.cuts.severed("node2", "node1")
    with pytest.raises(ConfigError):
        Partition(groups=(Selection(("all",)),))


def test_links_change_for_all_or_between_groups():
    one = play(
        event(2, "link", link="{ latency = 0.5 }", between='["node1", "node2"]')
        + event(4, "link", link='{ preset = "lan" }', label='"mended"')
    )
    pipe = one.world.underlay._pipe
    one.world.run(3.0)
    assert pipe("node2", "node1").link.latency == 0.5
    assert pipe("node3", "node1").link.latency == Link().latency
    one.world.run(5.0)
    assert pipe("node2", "node1").link == Link.lan()


def test_an_act_may_be_spread_over_some_seconds():
    one = play(event(2, "pod-add", nodes='"all"', over="2.0"))
    counts = []
    for at in (2.1, 2.6, 3.1, 3.6):
        one.world.run(at)
        counts.append(sum(len(m.engine.parts.holdings.pods) for m in one.world.live()))
    assert counts == [1, 2, 3, 4]
    outcome = one.run()
    assert of(outcome, "pod-add").at == 3.5
    assert len(of(outcome, "pod-add").seconds) == 4


def test_every_act_says_what_it_does():
    for name, act in ACTS.items():
        assert act.__doc__, name
        assert act.begin.__doc__, name
