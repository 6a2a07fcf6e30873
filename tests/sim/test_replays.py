"""Proofs: what was recorded is worth nothing. Ten minutes of everything, sent again in every way.

    record     three nodes, two of them joined by token; pods that talk, come and go; five rekeys
    replay     in order, reversed, shuffled; from where it came from, from a stranger, from another
               member; to whom it was for and to a third; at once, after a rekey, after a restart

Nothing may be delivered, move, or change. The one exception is a node that has just started: it
does not know the stamps of before, so an initiation may cost it one half-open keypair per member,
which nobody can confirm. With a protection taken away, the same replays do something: see the end.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import blake2s

import pytest

from overlay.config import Timing
from overlay.forwarding.inbound import Inbound, Moved
from overlay.session import sessions as session_module
from overlay.session.copies import Copies
from overlay.session.gate import Gate
from overlay.session.index import lane_index
from overlay.session.replay import ReplayWindow
from overlay.session.shown import SessionsSnapshot
from overlay.sim import Link, World
from overlay.types import DEFAULT_PORT, Endpoint
from overlay.wire.header import TYPE_DATA, TYPE_INITIATION, TYPE_RESPONSE, Header
from tests.support.engines import STRANGER, engine_of, everything
from tests.support.lane_net import Flying, LaneNet
from tests.support.replays import (
    Caught,
    caught,
    chatter,
    drawn_up,
    half_open,
    in_every_order,
    is_answer,
    play,
    replay,
    sessions,
)

NODES = ("node1", "node2", "node3")
MINUTES = 10
TIMING = Timing()

REFUSED = {"replayed", "unknown_index", "bad_handshake"}
"""What becomes of datagrams that were taken before, or were for somebody else."""


def recorded(minutes: float = MINUTES, seed: int = 3) -> World:
    """Three nodes that have talked for so long, on links that reorder and repeat."""
    link = Link(latency=0.01, jitter=0.005, reordering=0.02, duplication=0.02)
    world = World(seed, link=link)
    for name in NODES[1:]:
        world.join(name)
    world.run_until(world.converged, timeout=30.0)
    for name in NODES:
        world[name].add_pod(f"{name}-pod")
    world.run(world.now + 3.0)
    for minute in range(1, round(minutes) + 1):
        name = NODES[minute % 3]
        world[name].add_pod(f"extra{minute}")
        chatter(world, 60.0 * minute, seed=minute)
        world[name].remove_pod(f"extra{minute}")
    world.run(world.now + 2.0)
    return world


def of(seen: list[Caught], name: str) -> list[Caught]:
    """What was for one node."""
    return [one for one in seen if one.target == name]


def replay_to_all(world: World, seen: list[Caught]) -> Counter[str]:
    """In every order, from everywhere, to everybody; what was dropped, by reason."""
    dropped: Counter[str] = Counter()
    for name in NODES:
        for source in (None, STRANGER, world[NODES[(NODES.index(name) + 1) % 3]].endpoint):
            for again in in_every_order(of(seen, name)):
                dropped += replay(world, name, again, source)
                world.run(world.now + 1.1)  # a second has room for a bounded number of handshakes
    return dropped


def test_the_record_has_everything_in_it():
    world = recorded()
    seen = caught(world)
    kinds = Counter(one.datagram[0] for one in seen)
    assert world.now > 60.0 * MINUTES
    assert kinds[TYPE_DATA] > 10_000
    assert kinds[TYPE_INITIATION] >= 3 * 5  # per pair, every two minutes
    assert kinds[TYPE_RESPONSE] >= 3 * 5
    data = [one.datagram for one in seen if one.datagram[0] == TYPE_DATA]
    headers = [Header.decode_untrusted(datagram) for datagram in data]
    assert max(header.last for header in headers) >= 10
    assert len({header.receiver for header in headers}) >= 2 * 3 * 5
    for name in NODES:
        delivered = world[name].delivered
        assert len(delivered) == len(set(delivered)) > 500


def test_a_running_node_is_not_impressed_by_what_it_has_seen():
    world = recorded()
    dropped = replay_to_all(world, caught(world))
    assert set(dropped) == {"replayed", "unknown_index"}
    assert dropped["replayed"] > 9 * 1000
    assert world.settled()


def test_after_a_rekey_all_of_it_is_as_worthless():
    world = recorded()
    seen = caught(world)
    of_before = {name: engine_of(world, name).parts.sessions.snapshot().indexes for name in NODES}
    chatter(world, world.now + TIMING.rekey_after + 5.0)
    for name in NODES:
        indexes = engine_of(world, name).parts.sessions.snapshot().indexes
        assert set(indexes[0]) != set(of_before[name][0]), "nothing was rekeyed"
    assert set(replay_to_all(world, seen)) <= REFUSED
    chatter(world, world.now + TIMING.reject_after)
    assert set(replay_to_all(world, seen)) <= {"replayed", "unknown_index"}


def test_what_was_for_one_node_means_nothing_to_another():
    world = recorded()
    seen = caught(world)
    for name in NODES:
        for other in NODES:
            if other == name:
                continue
            for source in (None, STRANGER):
                dropped = replay(world, other, of(seen, name), source)
                assert set(dropped) <= {"unknown_index", "bad_handshake"}
    # Nobody else's either: what a node sent itself is sent to it.
    for name in NODES:
        own = [one for one in seen if one.source == world[name].endpoint]
        assert set(replay(world, name, own)) <= {"unknown_index", "bad_handshake"}


@pytest.mark.parametrize("order", ["in order", "reversed", "shuffled"])
@pytest.mark.parametrize("name", ["node1", "node2"])
def test_a_node_that_has_just_started_has_nothing_but_half_open_keypairs_of_it(name, order):
    """Before anybody has talked to it again: it does not know any stamp."""
    world = recorded()
    seen = caught(world)
    again = drawn_up(of(seen, name), order)
    world.restart(name)
    shown, members = sessions(world, name), len(NODES) - 1
    joined = sum(one.datagram[0] == TYPE_INITIATION for one in again)
    before = rest_of(world, name)
    answered, dropped = play(world, name, again, STRANGER)
    assert 0 < answered <= joined
    assert set(dropped) <= REFUSED
    assert dropped.total() >= len(again) - answered
    assert sessions(world, name) == shown, "an old initiation has moved or replaced something"
    assert rest_of(world, name) == before
    tokens = len(engine_of(world, name).parts.sessions.snapshot().joiners)
    assert 1 <= half_open(world, name) <= members + tokens
    assert tokens == (2 if name == "node1" else 0), "as many as joiners that were admitted"
    # What was seen once is known from now on, and the others have not been touched.
    for other in NODES:
        assert set(replay(world, other, of(seen, other), STRANGER)) <= REFUSED
    # Nobody confirms those keypairs, nobody misses them, and they do not stay.
    world.run_until(world.converged, timeout=10.0)
    chatter(world, world.now + TIMING.reject_after + 1.0)
    assert half_open(world, name) == 0
    replay_once(world, seen)
    assert world.settled()


def rest_of(world: World, name: str) -> tuple[object, ...]:
    """All state of a node but its sessions and what they wait for."""
    state = list(everything(engine_of(world, name), world.now))
    assert isinstance(state[SESSIONS], SessionsSnapshot)
    del state[PEERING_DUE], state[SESSIONS]
    return tuple(state)


SESSIONS, PEERING_DUE = 1, 7
"""Places in what `everything` returns."""


@pytest.mark.parametrize("name", ["node1", "node2"])
def test_after_a_restart_the_sessions_that_came_up_again_stand(name):
    """The restarted node called its peers; it has not heard a stamp of theirs yet."""
    world = recorded()
    seen = caught(world)
    world.restart(name)
    world.run_until(world.converged, timeout=10.0)
    world.run(world.now + 1.0)
    shown, before = sessions(world, name), rest_of(world, name)
    assert all(one.current is not None for one in shown.values())
    for source in (STRANGER, None):
        for again in in_every_order(of(seen, name)):
            _, dropped = play(world, name, again, source)
            assert set(dropped) <= REFUSED
            assert sessions(world, name) == shown
            assert rest_of(world, name) == before
    for other in NODES:
        if other != name:
            assert set(replay(world, other, of(seen, other), STRANGER)) <= REFUSED
    # A tie that is none: the half-open keypairs must not disturb the next rekeys either.
    delivered = {one: len(world[one].delivered) for one in NODES}
    sent = chatter(world, world.now + 2 * TIMING.rekey_after)
    world.run(world.now + 1.0)
    assert sum(len(world[one].delivered) - delivered[one] for one in NODES) == sent
    assert half_open(world, name) == 0
    assert world.settled()


# -- lanes -----------------------------------------------------------------------------------------


def lanes_state(net: LaneNet) -> list[object]:
    """What replays may not change, at all lanes of all nodes."""
    shown: list[object] = []
    for node in net.nodes:
        carriers = [(node.engine.parts.sessions.keypairs, node.engine.parts.paths)]
        carriers += [(worker._keypairs, worker._paths) for worker in node.workers.values()]
        for keypairs, paths in carriers:
            shown += [
                [
                    (index, one.counter, one.replay.highest, bytes(one.replay._seen), one.confirmed)
                    for index, one in keypairs.items()
                ],
                [(one.node, one.endpoint, one.keypair, one.rx_bytes) for one in paths.values()],
            ]
        shown += [len(node.delivered), node.engine.parts.sessions.snapshot()]
    return shown


def give_to_lane(net: LaneNet, one: Flying, source: Endpoint) -> list[object]:
    """One datagram to the port it was for; what comes of it is not executed."""
    (node,) = [node for node in net.nodes if node.host == one.target.host]
    lane = one.target.port - DEFAULT_PORT
    carrier = node.workers[lane] if lane else node.engine
    return list(carrier.on_datagrams(memoryview(one.datagram), 0, source, net.now))


@pytest.mark.parametrize("counts", [(2, 2), (1, 3)])
def test_no_lane_is_impressed_by_what_any_lane_has_seen(counts):
    net = LaneNet(*counts)
    rng = random.Random(9)
    net.copies = lambda _: 2 if rng.random() < 0.05 else 1
    check, net.check = net.check, lambda: None  # it looks at all that was ever sent
    net.run(5.0)
    while net.now < 1000.0 + 60.0 * MINUTES:
        for _ in range(4):
            source = rng.randrange(2)
            net.send(source, rng.randrange(counts[source]), 1 - source)
        net.run(rng.random())
    net.check = check
    net.run(1.0)
    data = net.data()
    assert len({header.receiver for header, _ in data if header.lane}) >= 5
    assert {header.lane for header, _ in data} > {0, 0x10 if 1 in counts else 0x11}
    replay_to_lanes(net)
    for lane in range(1, counts[1]):  # and to processes that were born later
        net.nodes[1].kill(lane)
        net.nodes[1].spawn(lane)
    net.run(3.0)
    replay_to_lanes(net)


def replay_to_lanes(net: LaneNet) -> None:
    for source in (None, STRANGER):
        for again in in_every_order([one for one in net.wire if one.at <= net.now]):
            before = lanes_state(net)
            for one in again:
                sender = source or one.source
                done = give_to_lane(net, one, sender)
                assert all(is_answer(one.datagram, sender, effect) for effect in done)
            assert lanes_state(net) == before
            net.run(1.1)


# -- alive -----------------------------------------------------------------------------------------


def short() -> World:
    return recorded(1)


def replay_once(world: World, seen: list[Caught]) -> None:
    for name in NODES:
        replay(world, name, of(seen, name), STRANGER)


def taken_away(patch: pytest.MonkeyPatch, world: World, change: Callable[..., None]) -> None:
    """The replays fail to do nothing with a protection taken away; with it they do nothing."""
    seen = caught(world)
    replay_once(world, seen)
    world.run(world.now + 2.0)
    with patch.context() as patched:
        change(patched)
        with pytest.raises(AssertionError, match=r"twice|done about|changed|answered"):
            replay_once(world, seen)


def without_window(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ReplayWindow, "check", lambda *_: True)
    patch.setattr(ReplayWindow, "accept", lambda *_: True)


def without_check_before_opening(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ReplayWindow, "check", lambda *_: True)


def without_recognising_copies(patch: pytest.MonkeyPatch) -> None:
    """The stamp still shows that it is old, but its maker is told so."""
    patch.setattr(Copies, "is_copy", lambda *_: False)


def without_stamps(patch: pytest.MonkeyPatch) -> None:
    without_recognising_copies(patch)
    patch.setattr(Gate, "_refuse_old", lambda *_: None)


def roaming_before_authentication(patch: pytest.MonkeyPatch) -> None:
    admissible = Inbound._admissible

    def believing(inbound: Inbound, header: Header) -> object:
        keypair = inbound._keypairs.get(lane_index(header.receiver, header.lane))
        if keypair is not None:
            inbound._arrivals.append(Moved(keypair))
        return admissible(inbound, header)

    patch.setattr(Inbound, "_admissible", believing)


@pytest.mark.parametrize(
    "change",
    [
        without_window,
        without_check_before_opening,
        without_recognising_copies,
        without_stamps,
        roaming_before_authentication,
    ],
)
def test_without_a_protection_a_replay_does_something(monkeypatch, change):
    taken_away(monkeypatch, short(), change)


def test_without_marking_what_was_accepted_everything_is_delivered_twice(monkeypatch):
    """The window is asked, but nobody tells it."""
    world = short()
    with monkeypatch.context() as patch:
        patch.setattr(ReplayWindow, "accept", lambda *_: True)
        chatter(world, world.now + 5.0)
        world.run(world.now + 1.0)
        with pytest.raises(AssertionError, match="twice"):
            replay_once(world, caught(world)[-200:])


def test_without_fresh_keys_a_restart_makes_the_old_bursts_good_again(monkeypatch):
    """A responder whose ephemeral key and index follow from the initiation alone."""
    answer = session_module.answer

    def repeating(received: object, admission: object, **arguments: object) -> object:
        digest = blake2s(received.message.ephemeral).digest()
        index = int.from_bytes(digest[:4], "big") | 1
        return answer(
            received, admission, **{**arguments, "index": index, "entropy": partial(_same, digest)}
        )

    monkeypatch.setattr(session_module, "answer", repeating)
    world = short()
    seen = caught(world)
    (name,) = [  # who answered the handshake of the pair
        name
        for name in ("node1", "node2")
        for keypair in engine_of(world, name).parts.sessions.keypairs.values()
        if keypair.node == world["node2" if name == "node1" else "node1"].membership.identity.node
        and not keypair.initiator
    ][:1]
    world.restart(name)
    with pytest.raises(AssertionError, match="twice"):
        play(world, name, of(seen, name), STRANGER)


def _same(digest: bytes, size: int) -> bytes:
    return (digest * 2)[:size]
