"""The gossip machine: what it sends, to whom, and that clusters of it converge."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.config import Limits
from overlay.effects import ProbeAnswered, Report
from overlay.errors import CapacityError, StateError
from overlay.gossip.machine import STRANGERS
from overlay.wire.claims import ClaimState
from overlay.wire.items import Item, item_id
from overlay.wire.messages import (
    Claims,
    Delta,
    Have,
    Ids,
    IndirectProbe,
    IndirectReply,
    Probe,
    ProbeReply,
    Summary,
    Want,
)
from tests.support.gossips import (
    DEAD,
    READY,
    SUSPECT,
    Cluster,
    claim,
    make_gossip,
    node_id,
    sent,
)

A, B = node_id(1), node_id(2)
SELF = node_id(0)
ITEM = Item(b"k", 1, b"x")
ID = item_id(ITEM)


# -- items -----------------------------------------------------------------------------------------


def meet(gossip, nodes):
    for node in nodes:
        gossip.on_message(node, Probe(1), 0.5)


def test_an_own_change_goes_to_every_neighbour_at_once():
    gossip, store = make_gossip(peers=8)
    meet(gossip, gossip.neighbours())
    effects = gossip.publish([ITEM], 1.0)
    assert {node for node, _ in sent(effects, Delta)} == {node_id(n) for n in range(1, 9)}
    assert store.get(b"k") == ITEM
    assert gossip.take_learned() == []


def test_in_a_large_cluster_there_are_not_more_neighbours():
    gossip, _ = make_gossip(peers=200)
    assert len(gossip.neighbours()) <= 8
    meet(gossip, gossip.neighbours())
    nodes = [node for node, _ in sent(gossip.publish([ITEM], 1.0))]
    assert nodes == gossip.neighbours()


def test_who_has_met_nobody_tells_a_few_neighbours_and_starts_no_handshake_with_all():
    gossip, _ = make_gossip(peers=200)
    nodes = [node for node, _ in sent(gossip.publish([ITEM], 1.0))]
    assert nodes == gossip.neighbours()[:STRANGERS]


def test_a_full_store_refuses_an_own_item():
    gossip, _ = make_gossip(limits=replace(Limits(), items=0))
    with pytest.raises(CapacityError):
        gossip.publish([ITEM], 1.0)


def test_news_is_learned_once_and_passed_on_but_not_back():
    gossip, _ = make_gossip(peers=4)
    for number in (2, 3):
        gossip.on_message(node_id(number), Probe(1), 0.5)
    effects = gossip.on_message(A, Delta((ITEM,)), 1.0)
    # Who was never met is told nothing, or records that come would start as many handshakes.
    assert sorted(dict(sent(effects, Have))) == sorted(node_id(n) for n in (2, 3))
    assert gossip.take_learned() == [ITEM]
    assert gossip.take_learned() == []


def test_what_is_refused_is_reported_and_not_passed_on():
    gossip, store = make_gossip(peers=3, admit=lambda item: False)
    gossip.on_heard(A, 1.0, 1.0)
    effects = gossip.on_message(A, Delta((ITEM,)), 2.0)
    assert effects == [Report("gossip.refused", {"peer": A[:4].hex(), "count": 1}, debug=True)]
    assert (len(store), gossip.take_learned()) == (0, [])
    assert gossip.counters()["refused_items"] == 1


def test_a_stranger_is_answered():
    """A node that has just joined knows us before we know it."""
    gossip, store = make_gossip()
    store.put(ITEM)
    root = bytes(8)
    assert sent(gossip.on_message(A, Summary(bytes(8), 0, root), 1.0)) == [(A, Ids(b"", ID))]
    assert sent(gossip.on_message(A, Ids(b"", b""), 1.0)) == [(A, Have(ID))]
    assert sent(gossip.on_message(A, Want(ID), 1.0)) == [(A, Delta((ITEM,)))]
    assert sent(gossip.on_message(A, Probe(7), 1.0)) == [(A, ProbeReply(7))]
    (reply,) = sent(gossip.on_message(A, IndirectProbe(7, B), 1.0))
    assert reply == (A, IndirectReply(7, reached=False))


def test_a_node_whose_session_came_up_is_asked_whether_it_holds_and_believes_the_same():
    gossip, store = make_gossip(peers=1)
    store.put(ITEM)
    assert sent(gossip.greet(A, 1.0)) == [(A, Summary(store.root(), 1, bytes(8)))]
    gossip.on_message(B, Claims((claim(A, ClaimState.SUSPECT),)), 1.0)
    ((_, summary),) = sent(gossip.greet(A, 1.0))
    assert summary.claims == (claim(A, ClaimState.SUSPECT),)


def test_while_one_comparison_is_under_way_no_other_is_begun():
    gossip, _ = make_gossip(peers=2)
    gossip.on_message(A, Ids(b"", ID), 1.0)
    assert sent(gossip.greet(B, 1.0)) == []
    assert len(sent(gossip.greet(A, 1.0))) == 1
    gossip.on_message(A, Delta((ITEM,)), 1.1)
    assert len(sent(gossip.greet(B, 1.1))) == 1


# -- rounds ----------------------------------------------------------------------------------------


def run_alone(gossip, until, heard=()):
    """Wake up at every deadline; `heard` members are heard all the time."""
    effects, now = [], 0.0
    while (at := gossip.next_deadline()) is not None and at <= until:
        now = max(now, at)
        for node in heard:
            gossip.on_heard(node, now, now)
        effects += gossip.on_deadline(now)
        gossip.check_invariants(now)
    return effects


def test_summaries_go_out_each_interval_to_random_neighbours():
    gossip, store = make_gossip(peers=4)
    members = [node_id(number) for number in range(1, 5)]
    summaries = sent(run_alone(gossip, 400.0, heard=members), Summary)
    assert 350 <= len(summaries) <= 450
    assert {message.root for _, message in summaries} == {store.root()}
    assert {node for node, _ in summaries} == set(members)


def test_without_members_there_is_nothing_to_do():
    gossip, _ = make_gossip()
    assert gossip.next_deadline() is None
    assert gossip.on_deadline(1.0) == []
    gossip.add_member(A, 1, 1.0)
    gossip.add_member(A, 1, 1.0)
    gossip.remove_member(A)
    gossip.remove_member(A)
    assert gossip.on_deadline(100.0) == []
    assert (gossip.next_deadline(), gossip.snapshot(100.0)) == (None, {})


# -- liveness --------------------------------------------------------------------------------------


def test_a_member_is_suspect_until_it_is_heard_or_somebody_tells():
    gossip, _ = make_gossip(peers=2)
    assert gossip.state(A, 0.0) is SUSPECT
    effects = gossip.on_message(A, Probe(1), 1.0)
    assert effects[0] == Report("member.ready", {"peer": A[:4].hex(), "silent": 0.0})
    assert (gossip.state(A, 1.0), gossip.state(B, 1.0)) == (READY, SUSPECT)
    gossip.on_message(A, Summary(bytes(8), 0, bytes(8)), 1.0)
    assert gossip.state(B, 1.0) is READY
    assert gossip.snapshot(2.0)[B].seen is None
    assert gossip.state(node_id(9), 1.0) is None


def test_beliefs_that_differ_are_told_both_ways():
    gossip, _ = make_gossip(peers=3)
    gossip.on_message(A, Claims((claim(B, ClaimState.SUSPECT),)), 1.0)
    effects = gossip.on_message(A, Summary(bytes(8), 0, bytes(8)), 2.0)
    assert sent(effects, Claims) == [(A, Claims((claim(B, ClaimState.SUSPECT),), ask=True))]
    effects = gossip.on_message(A, Claims((), ask=True), 3.0)
    assert sent(effects, Claims) == [(A, Claims((claim(B, ClaimState.SUSPECT),)))]


def test_claims_travel_on_the_back_of_whatever_is_sent():
    gossip, _ = make_gossip(peers=3)
    gossip.on_message(A, Claims((claim(B, ClaimState.SUSPECT),)), 1.0)
    ((_, reply),) = sent(gossip.on_message(A, Probe(7), 1.0))
    assert reply == ProbeReply(7, (claim(B, ClaimState.SUSPECT),))


def test_a_requested_probe_is_answered_with_its_token():
    gossip, _ = make_gossip(peers=1)
    [(node, probe)] = sent(gossip.probe(A, 42, 1.0))
    assert node == A
    gossip.on_heard(A, 1.2, 1.2)
    assert gossip.on_message(A, ProbeReply(probe.sequence), 1.25) == [ProbeAnswered(A, 42, 0.25)]
    with pytest.raises(StateError):
        gossip.probe(node_id(9), 43, 1.0)


def test_what_should_not_happen_often_is_counted():
    gossip, _ = make_gossip(peers=3)
    forged = claim(A, ClaimState.DEAD, 1)._replace(proof=bytes(64))
    gossip.on_message(B, Claims((forged, claim(SELF, ClaimState.SUSPECT))), 1.0)
    gossip.on_deadline(1.2)
    counters = gossip.counters()
    assert (counters["forged_claims"], counters["refuted"]) == (1, 1)
    gossip.set_boot(2)
    gossip.on_message(B, Claims((claim(SELF, ClaimState.SUSPECT),)), 2.0)
    gossip.on_deadline(3.0)
    assert gossip.counters()["refuted"] == 1


# -- muted -----------------------------------------------------------------------------------------


def test_what_was_published_in_an_earlier_call_is_withheld_too():
    """The failure to store shows only after the effects of a publication were returned."""
    gossip, _ = make_gossip(peers=1)
    gossip.publish([ITEM], 1.0)
    gossip.mute(True)
    assert sent(gossip.on_message(A, Want(ID), 1.0)) == []
    gossip.mute(False)
    assert sent(gossip.on_message(A, Want(ID), 1.0)) == [(A, Delta((ITEM,)))]


# -- leaving ---------------------------------------------------------------------------------------


def test_an_offer_goes_out_with_its_items_and_ends_when_confirmed():
    gossip, _ = make_gossip(peers=2)
    assert (gossip.offer_done, gossip.offer_confirmed) == (False, 0)
    have = Have(ID, confirm=True)
    effects = gossip.offer([ITEM], [A, B], 1.0)
    assert sent(effects) == [(n, m) for n in (A, B) for m in (Delta((ITEM,)), have)]
    assert sent(gossip.on_message(A, Want(ID), 1.1)) == [(A, Delta((ITEM,)))]
    assert sent(gossip.on_message(A, Want(b""), 1.2)) == []
    assert (gossip.offer_done, gossip.offer_confirmed) == (False, 1)
    assert (B, have) in sent(gossip.on_deadline(1.5), Have)
    gossip.on_message(B, Want(b""), 1.6)
    assert (gossip.offer_done, gossip.offer_confirmed) == (True, 2)


def test_a_member_that_left_itself_is_not_waited_for():
    gossip, _ = make_gossip(peers=3)
    gossip.offer([ITEM], [A], 1.0)
    gossip.remove_member(A)
    assert gossip.offer_done


def test_a_long_offer_continues_when_a_part_is_confirmed():
    gossip, _ = make_gossip(peers=1)
    items = [Item(b"%040d" % n, 1, b"") for n in range(4001)]
    first = sent(gossip.offer(items, [A], 1.0), Have)
    second = sent(gossip.on_message(A, Want(b""), 1.1), Have)
    assert len(first) == len(second) == 1
    assert first != second
    gossip.on_message(A, Want(b""), 1.2)
    assert (gossip.offer_done, gossip.offer_confirmed) == (True, 1)


# -- clusters --------------------------------------------------------------------------------------


@settings(max_examples=5)
@given(st.integers(0, 1000))
def test_a_cluster_converges_under_loss(seed):
    cluster = Cluster(8, seed, loss=0.2)
    for number in range(8):
        cluster.publish(number, Item(b"n%d" % number, 1, b"x"))
    cluster.run(8.0)
    assert len(cluster.roots()) == 1
    assert all(len(store) == 8 for _, store in cluster.nodes.values())
    cluster.check()


def test_a_change_reaches_a_large_cluster_faster_than_anti_entropy():
    cluster = Cluster(100, seed=3)
    cluster.run(2.0)
    cluster.publish(0, ITEM)
    cluster.run(2.5)
    assert all(store.get(b"k") == ITEM for _, store in cluster.nodes.values())


def test_with_all_news_lost_comparing_brings_it():
    cluster = Cluster(8, seed=4)
    node = node_id(0)
    cluster.nodes[node][0].publish([ITEM], 0.0)  # and what it sends is thrown away
    cluster.run(8.0)
    assert all(store.get(b"k") == ITEM for _, store in cluster.nodes.values())


def test_a_crash_is_noticed_by_all_and_nobody_else_is_thought_dead():
    cluster = Cluster(40, seed=5)
    cluster.run(8.0)
    assert cluster.states() == {READY}
    cluster.stop(7)
    cluster.run(25.0)
    assert cluster.states(7) == {DEAD}
    assert cluster.states() == {READY}
    assert cluster.said("member.dead") == {node_id(7)[:4].hex()}
    cluster.check()


def test_a_third_that_dies_at_once_is_noticed_by_all_and_nobody_else_is_thought_dead():
    cluster = Cluster(60, seed=6)
    cluster.run(8.0)
    gone = range(0, 60, 3)
    cluster.stop(*gone)
    cluster.run(38.0)
    assert cluster.states(*gone) == {DEAD}
    assert cluster.states() == {READY}
    assert cluster.said("member.dead") == {node_id(number)[:4].hex() for number in gone}
    cluster.check()


def test_a_partition_is_noticed_and_heals_and_nobody_believes_the_other_sides_old_claims():
    cluster = Cluster(8, seed=5)
    cluster.run(3.0)
    half = {node_id(number) for number in range(4)}
    cluster.reachable = lambda a, b: (a in half) == (b in half)
    cluster.run(20.0)
    assert cluster.states() == {READY, DEAD}
    cluster.publish(0, Item(b"left", 1, b""))
    cluster.publish(7, Item(b"right", 1, b""))
    cluster.run(22.0)
    assert len(cluster.roots()) == 2
    cluster.reports.clear()
    cluster.reachable = lambda a, b: True
    cluster.run(27.0)
    assert cluster.states() == {READY}
    assert len(cluster.roots()) == 1
    assert cluster.said("member.dead") == set()
    cluster.check()


def test_a_pause_of_five_seconds_kills_nobody():
    cluster = Cluster(8, seed=7)
    cluster.run(3.0)
    cluster.asleep = {node_id(3)}
    cluster.run(8.0)
    assert cluster.states(3) == {SUSPECT}
    cluster.asleep = set()
    cluster.run(20.0)
    assert cluster.states() == {READY}
    assert cluster.said("member.dead") == set()


def test_the_cost_of_a_node_does_not_grow_with_the_cluster():
    costs = []
    for size in (20, 160):
        cluster = Cluster(size, seed=8)
        cluster.run(5.0)
        count, octets = cluster.count, cluster.bytes
        cluster.run(15.0)
        costs.append(((cluster.count - count) / size, (cluster.bytes - octets) / size))
    assert costs[1][0] < 1.2 * costs[0][0]
    assert costs[1][1] < 1.2 * costs[0][1]


def test_the_same_seed_gives_the_same_history():
    def history():
        cluster = Cluster(12, seed=9, loss=0.1)
        cluster.publish(1, ITEM)
        cluster.run(6.0)
        return cluster.count, cluster.reports, cluster.now

    assert history() == history()
