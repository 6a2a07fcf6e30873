"""The gossip machine: what it sends, to whom, and that clusters of it converge."""

from __future__ import annotations

import random
from dataclasses import replace
from heapq import heappop, heappush

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.config import Limits, Timing
from overlay.effects import ProbeAnswered, Report, SendControl
from overlay.errors import CapacityError, StateError
from overlay.gossip.machine import FANOUT, PUSHED_ITEMS, RELAY_FANOUT, Gossip
from overlay.gossip.store import Store
from overlay.types import NodeId
from overlay.views import NodeState
from overlay.wire.control import decode_untrusted
from overlay.wire.items import Item, fingerprint
from overlay.wire.messages import Delta, Digest, DigestEntry, Probe, ProbeReply, Summary, Want

TIMING = Timing()


def node_id(number):
    return NodeId(number.to_bytes(2, "big") * 16)


def make_gossip(peers=0, seed=1, admit=lambda item: True, limits=None, now=0.0):
    store = Store(admit, limits or Limits())
    gossip = Gossip(store, TIMING, random.Random(seed))
    for number in range(1, peers + 1):
        gossip.add_member(node_id(number), now)
    return gossip, store


def sent(effects, kind=None):
    pairs = [(e.node, decode_untrusted(e.message)) for e in effects if isinstance(e, SendControl)]
    return [(node, m) for node, m in pairs if kind is None or isinstance(m, kind)]


def entry(item):
    return DigestEntry(item.key, item.version, fingerprint(item))


A = node_id(1)
B = node_id(2)
ITEM = Item(b"k", 1, b"x")


# -- own changes -----------------------------------------------------------------------------------


def test_an_own_change_goes_to_every_member_of_a_small_cluster_at_once():
    gossip, store = make_gossip(peers=FANOUT)
    effects = gossip.publish([ITEM], 1.0)
    assert sent(effects) == [(node_id(n), Delta((ITEM,))) for n in range(1, FANOUT + 1)]
    assert store.get(b"k") == ITEM
    assert gossip.take_learned() == []


def test_in_a_large_cluster_it_goes_to_some():
    gossip, _ = make_gossip(peers=40)
    nodes = [node for node, _ in sent(gossip.publish([ITEM], 1.0))]
    assert len(set(nodes)) == len(nodes) == FANOUT


def test_the_dead_are_not_pushed_to():
    gossip, _ = make_gossip(peers=2)
    gossip.on_heard(A, 29.0)
    assert sent(gossip.publish([ITEM], 31.0)) == [(A, Delta((ITEM,)))]


def test_what_was_published_before_is_not_sent_again():
    gossip, _ = make_gossip(peers=2)
    gossip.publish([ITEM], 1.0)
    assert gossip.publish([ITEM], 2.0) == []


def test_a_full_store_refuses_an_own_item():
    gossip, _ = make_gossip(limits=replace(Limits(), items=0))
    with pytest.raises(CapacityError):
        gossip.publish([ITEM], 1.0)


# -- news of others --------------------------------------------------------------------------------


def test_news_is_learned_once_and_passed_on_but_not_back():
    gossip, _ = make_gossip(peers=10)
    effects = gossip.on_message(A, Delta((ITEM,)), 1.0)
    relayed = sent(effects, Delta)
    assert len(relayed) == RELAY_FANOUT
    assert A not in dict(relayed)
    assert gossip.take_learned() == [ITEM]
    assert gossip.take_learned() == []
    assert sent(gossip.on_message(B, Delta((ITEM,)), 2.0)) == []
    assert gossip.take_learned() == []


def test_much_news_at_once_is_offered_instead_of_pushed():
    gossip, _ = make_gossip(peers=2)
    items = tuple(Item(b"k%02d" % n, 1, b"x") for n in range(PUSHED_ITEMS + 1))
    effects = gossip.on_message(A, Delta(items), 1.0)
    assert sent(effects) == [(B, Digest(tuple(map(entry, items)), complete=False))]


def test_what_is_refused_is_reported_and_not_passed_on():
    gossip, store = make_gossip(peers=3, admit=lambda item: False)
    gossip.on_heard(A, 1.0)
    effects = gossip.on_message(A, Delta((ITEM,)), 2.0)
    assert effects == [Report("gossip.refused", {"peer": "00010001", "count": 1}, debug=True)]
    assert (len(store), gossip.take_learned()) == (0, [])


# -- rounds ----------------------------------------------------------------------------------------


def run_alone(gossip, until, heard=()):
    """Wake up at every deadline; `heard` members are heard all the time."""
    effects, now = [], 0.0
    while (at := gossip.next_deadline()) is not None and at <= until:
        now = max(now, at)
        for node in heard:
            gossip.on_heard(node, now)
        effects += gossip.on_deadline(now)
        gossip.check_invariants(now)
    return effects


def test_summaries_go_out_each_interval_mostly_to_the_living():
    gossip, store = make_gossip(peers=4)
    summaries = sent(run_alone(gossip, 400.0, heard=[A, B]), Summary)
    assert 350 <= len(summaries) <= 450
    assert {message for _, message in summaries} == {Summary(store.root(), 0)}
    silent = sum(node not in (A, B) for node, _ in summaries)
    assert 0.1 <= silent / len(summaries) <= 0.3


def test_every_member_is_probed_each_interval_dead_or_not():
    gossip, _ = make_gossip(peers=5)
    probes = sent(run_alone(gossip, 100.0, heard=[A]), Probe)
    for number in range(1, 6):
        assert 45 <= sum(node == node_id(number) for node, _ in probes) <= 60
    assert len({message.sequence for _, message in probes}) == len(probes)


def test_without_members_there_is_nothing_to_do():
    gossip, _ = make_gossip()
    assert gossip.next_deadline() is None
    assert gossip.on_deadline(1.0) == []
    gossip.add_member(A, 1.0)
    gossip.add_member(A, 1.0)
    gossip.remove_member(A)
    gossip.remove_member(A)
    assert gossip.on_deadline(100.0) == []
    assert (gossip.next_deadline(), gossip.snapshot(100.0)) == (None, {})


def test_a_round_with_a_stranger_is_answered():
    """A node that has just joined knows us before we know it."""
    gossip, store = make_gossip()
    store.put(ITEM)
    digest = Digest((entry(ITEM),), complete=True)
    assert sent(gossip.on_message(A, Summary(bytes(8), 0), 1.0)) == [(A, digest)]
    assert sent(gossip.on_message(A, Digest((), complete=True), 1.0)) == [(A, Delta((ITEM,)))]
    assert sent(gossip.on_message(A, Want((b"k",)), 1.0)) == [(A, Delta((ITEM,)))]
    assert sent(gossip.on_message(A, Probe(7), 1.0)) == [(A, ProbeReply(7))]


def test_a_node_whose_session_came_up_is_asked_whether_it_holds_the_same():
    gossip, store = make_gossip()
    store.put(ITEM)
    assert sent(gossip.greet(A)) == [(A, Summary(store.root(), 1))]
    gossip.offer([ITEM], [A], 1.0)
    assert gossip.greet(A) == []


# -- liveness --------------------------------------------------------------------------------------


def test_state_changes_are_reported_once_each():
    gossip, _ = make_gossip(peers=1)
    assert gossip.state(A, 0.0) is NodeState.SUSPECT
    effects = gossip.on_message(A, Probe(1), 1.0)
    assert effects[0] == Report("member.ready", {"peer": "00010001", "silent": 1.0})
    effects = run_alone(gossip, 60.0)
    assert [effect for effect in effects if isinstance(effect, Report)] == [
        Report("member.suspect", {"peer": "00010001", "silent": 6.0}),
        Report("member.dead", {"peer": "00010001", "silent": 30.0}),
    ]
    assert gossip.state(A, 60.0) is NodeState.DEAD
    assert gossip.state(B, 60.0) is None


def test_a_requested_probe_is_answered_with_its_token():
    gossip, _ = make_gossip(peers=1)
    [(node, probe)] = sent(gossip.probe(A, 42, 1.0))
    assert node == A
    gossip.on_heard(A, 1.2)
    assert gossip.on_message(A, ProbeReply(probe.sequence), 1.25) == [ProbeAnswered(A, 42, 0.25)]
    assert gossip.on_message(A, ProbeReply(probe.sequence), 1.5) == []
    with pytest.raises(StateError):
        gossip.probe(B, 43, 1.0)


def test_the_reply_to_an_own_probe_gives_the_round_trip_time():
    gossip, _ = make_gossip(peers=1)
    gossip.on_heard(A, 0.0)
    [(_, probe)] = sent(gossip.on_deadline(0.6), Probe)
    assert gossip.on_message(A, ProbeReply(probe.sequence), 0.85) == []
    view = gossip.snapshot(1.85)[A]
    assert view.rtt == pytest.approx(0.25)
    assert (view.state, view.loss, view.seen) == (NodeState.READY, 0.0, 1.0)


# -- muted -----------------------------------------------------------------------------------------


def test_while_muted_nothing_own_is_announced_in_any_way():
    gossip, store = make_gossip(peers=3)
    other = Item(b"other", 1, b"")
    gossip.on_message(A, Delta((other,)), 0.0)
    gossip.mute(True)
    assert gossip.publish([ITEM], 1.0) == []
    assert store.get(b"k") == ITEM
    said = gossip.on_message(A, Summary(bytes(8), 0), 1.0)
    said += gossip.on_message(A, Digest((), complete=True), 1.0)
    said += gossip.on_message(A, Want((b"k",)), 1.0)
    said += gossip.on_message(A, Delta((Item(b"k", 2, b""),)), 1.0)
    assert sent(said) == [(A, Digest((entry(other),), complete=True)), (A, Delta((other,)))]


def test_what_was_published_in_an_earlier_call_is_withheld_too():
    """The failure to store shows only after the effects of a publication were returned."""
    gossip, _ = make_gossip(peers=1)
    gossip.publish([ITEM], 1.0)
    gossip.mute(True)
    assert sent(gossip.on_message(A, Want((b"k",)), 1.0)) == []
    gossip.mute(False)
    assert sent(gossip.on_message(A, Want((b"k",)), 1.0)) == [(A, Delta((ITEM,)))]


def test_a_muted_node_passes_on_what_others_say():
    gossip, _ = make_gossip(peers=2)
    gossip.mute(True)
    assert sent(gossip.on_message(A, Delta((ITEM,)), 1.0)) == [(B, Delta((ITEM,)))]


# -- leaving ---------------------------------------------------------------------------------------


def test_an_offer_goes_out_with_its_items_and_ends_when_confirmed():
    gossip, _ = make_gossip(peers=2)
    assert (gossip.offer_done, gossip.offer_confirmed) == (False, 0)
    offered = Digest((entry(ITEM),), complete=False)
    effects = gossip.offer([ITEM], [A, B], 1.0)
    assert sent(effects) == [(n, m) for n in (A, B) for m in (Delta((ITEM,)), offered)]
    assert sent(gossip.on_message(A, Want((b"k",)), 1.1)) == [(A, Delta((ITEM,)))]
    assert sent(gossip.on_message(A, Want(()), 1.2)) == []
    assert (gossip.offer_done, gossip.offer_confirmed) == (False, 1)
    assert sent(gossip.on_deadline(1.5), Digest) == [(B, offered)]
    gossip.on_message(B, Want(()), 1.6)
    assert (gossip.offer_done, gossip.offer_confirmed) == (True, 2)


def test_while_an_offer_is_open_nothing_else_is_offered():
    gossip, _ = make_gossip(peers=3)
    gossip.offer([ITEM], [A], 1.0)
    assert sent(gossip.on_message(A, Summary(bytes(8), 0), 1.1)) == []
    assert sent(gossip.on_message(A, Delta((Item(b"news", 1, b""),)), 1.1)) == []
    gossip.remove_member(A)
    assert gossip.offer_done
    assert sent(gossip.on_message(A, Summary(bytes(8), 0), 1.1)) != []


def test_a_long_offer_continues_when_a_part_is_confirmed():
    gossip, _ = make_gossip(peers=1)
    items = [Item(b"%040d" % n, 1, b"") for n in range(800)]
    first = sent(gossip.offer(items, [A], 1.0), Digest)
    second = sent(gossip.on_message(A, Want(()), 1.1), Digest)
    assert len(first) == len(second) == 1
    assert first != second
    gossip.on_message(A, Want(()), 1.2)
    assert (gossip.offer_done, gossip.offer_confirmed) == (True, 1)


# -- clusters --------------------------------------------------------------------------------------


class Cluster:
    """Several machines on virtual time; `reachable` decides which messages arrive."""

    def __init__(self, size, seed, loss=0.0):
        self.rng = random.Random(seed)
        self.loss = loss
        self.now = 0.0
        self.queue = []
        self.count = 0
        self.reports = []
        self.reachable = lambda a, b: True
        self.nodes = {}
        for number in range(size):
            self.nodes[node_id(number)] = make_gossip(seed=seed * 1000 + number)
        for node, (gossip, _) in self.nodes.items():
            for other in self.nodes:
                if other != node:
                    gossip.add_member(other, 0.0)

    def execute(self, node, effects):
        self.reports += [(node, effect.event) for effect in effects if isinstance(effect, Report)]
        for other, message in sent(effects):
            if self.reachable(node, other) and self.rng.random() >= self.loss:
                self.count += 1
                arrival = self.now + self.rng.uniform(0.01, 0.05)
                heappush(self.queue, (arrival, self.count, other, node, message))

    def run(self, until):
        while self.now < until:
            deadlines = ((gossip.next_deadline(), node) for node, (gossip, _) in self.nodes.items())
            at, node = min(deadlines)
            if self.queue and self.queue[0][0] <= at:
                self.now, _, node, source, message = heappop(self.queue)
                self.execute(node, self.nodes[node][0].on_message(source, message, self.now))
            else:
                self.now = at
                self.execute(node, self.nodes[node][0].on_deadline(at))

    def publish(self, number, item):
        node = node_id(number)
        self.execute(node, self.nodes[node][0].publish([item], self.now))

    def roots(self):
        return {store.root() for _, store in self.nodes.values()}

    def states(self):
        return {
            view.state
            for gossip, _ in self.nodes.values()
            for view in gossip.snapshot(self.now).values()
        }


@settings(max_examples=5)
@given(st.integers(0, 1000))
def test_a_cluster_converges_under_loss(seed):
    cluster = Cluster(8, seed, loss=0.2)
    for number in range(8):
        cluster.publish(number, Item(b"n%d" % number, 1, b"x"))
    cluster.run(8.0)
    assert len(cluster.roots()) == 1
    assert all(len(store) == 8 for _, store in cluster.nodes.values())


def test_a_change_reaches_a_large_cluster_faster_than_anti_entropy():
    cluster = Cluster(30, seed=3)
    cluster.publish(0, ITEM)
    cluster.run(0.6)
    knowing = sum(store.get(b"k") is not None for _, store in cluster.nodes.values())
    assert knowing >= 27


def test_a_partition_is_noticed_and_heals():
    cluster = Cluster(6, seed=5)
    cluster.run(3.0)
    assert cluster.states() == {NodeState.READY}
    cluster.reachable = lambda a, b: (a < node_id(3)) == (b < node_id(3))
    cluster.run(20.0)
    assert {event for _, event in cluster.reports[-3:]} == {"member.suspect"}
    cluster.publish(0, Item(b"left", 1, b""))
    cluster.publish(5, Item(b"right", 1, b""))
    cluster.run(40.0)
    assert cluster.states() == {NodeState.READY, NodeState.DEAD}
    assert len(cluster.roots()) == 2
    cluster.reachable = lambda a, b: True
    cluster.run(46.0)
    assert cluster.states() == {NodeState.READY}
    assert len(cluster.roots()) == 1


def test_the_same_seed_gives_the_same_history():
    def history():
        cluster = Cluster(5, seed=9, loss=0.1)
        cluster.publish(1, ITEM)
        cluster.run(6.0)
        return cluster.count, cluster.reports, cluster.now

    assert history() == history()
