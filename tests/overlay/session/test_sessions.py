"""Two and more nodes: the handshake, replays, strangers, and a terrible network."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.config import Limits, Settings, Timing
from overlay.drops import DropReason
from overlay.effects import Report, SessionDown, SessionUp
from overlay.errors import AuthError, StateError
from overlay.session.cookie import MacMaker
from overlay.types import Endpoint
from overlay.wire.handshake import (
    Suite,
)
from tests.support.clusters import WALL, signing_key, static_key
from tests.support.session_net import (
    STRANGER,
    TERRIBLE,
    Link,
    Network,
    Node,
    initiation,
    opened,
    refuse,
    sealed,
    two,
    up,
)


def test_one_round_trip_brings_a_session_up_at_both_ends():
    network, a, b = two()
    a.connect(b)
    assert a.sessions.is_connecting(b.id)
    network.run(0.05)
    assert up(a, b)
    assert not a.sessions.is_connecting(b.id)
    assert SessionUp(b.id, b.endpoint) in a.effects
    assert SessionUp(a.id, a.endpoint) in b.effects
    assert a.send(b, b"to b")
    assert b.send(a, b"to a")
    network.run(0.1)
    assert (b.id, b"to a") in a.received
    assert (a.id, b"to b") in b.received


def test_ends_see_the_same_keypair_and_learn_its_particulars():
    network, a, b = two()
    a.connect(b)
    network.run(1.0)
    at_a = a.sessions.sending_keypair(b.id, 1.0)
    at_b = b.sessions.sending_keypair(a.id, 1.0)
    assert (at_a.local_index, at_a.remote_index) == (at_b.remote_index, at_b.local_index)
    assert (at_a.initiator, at_b.initiator) == (True, False)
    assert (at_a.node, at_b.node) == (b.id, a.id)
    assert a.sessions.established_at(b.id) == a.sessions.rekeyed_at(b.id) == pytest.approx(0.02)
    assert a.sessions.observed_endpoint(b.id) == a.endpoint
    assert a.sessions.keypairs == {at_a.local_index: at_a}


def test_establishment_is_reported_once_and_without_secrets():
    network, a, b = two(settings=Settings(timing=Timing.quick()))
    a.connect(b)
    network.run(60.0)
    reports = [effect for effect in a.effects if isinstance(effect, Report)]
    assert reports == [
        Report(
            "session.established",
            {"peer": b.id[:4].hex(), "endpoint": "192.0.2.2:6875", "cipher": "AES-256-GCM"},
        )
    ]
    assert a.ups(b) > 3


def test_connecting_twice_or_while_up_sends_nothing():
    network, a, b = two()
    a.connect(b)
    assert a.sessions.connect(b.id, b.endpoint, 0.0) == []
    network.run(1.0)
    assert a.sessions.connect(b.id, b.endpoint, 1.0) == []


def test_an_endpoint_given_while_retrying_is_used_for_the_next_try():
    network, a, b = two()
    a.act(a.sessions.connect(b.id, STRANGER, 0.0))
    a.connect(b)
    network.run(3.0)
    assert up(a, b)


@pytest.mark.parametrize(
    ("first", "second", "suite"),
    [
        (True, True, Suite.AES_256_GCM),
        (True, False, Suite.CHACHA20_POLY1305),
        (False, True, Suite.CHACHA20_POLY1305),
    ],
)
def test_aes_is_used_only_if_both_ends_prefer_it(first, second, suite):
    network = Network()
    a = network.add(1, settings=Settings(prefer_aes=first))
    b = network.add(2, settings=Settings(prefer_aes=second))
    a.knows(b)
    a.connect(b)
    network.run(1.0)
    assert up(a, b)
    assert a.sessions.sending_keypair(b.id, 1.0).suite is suite


def test_a_certified_node_nobody_introduced_may_start_a_session():
    network = Network()
    a, b = network.add(1), network.add(2)
    a.knows(b)
    a.connect(b)
    network.run(1.0)
    assert up(a, b)
    assert b.ups(a) == 1
    assert b.sessions.connect(a.id, a.endpoint, 1.0) == []


def test_an_introduced_node_that_changes_its_static_key_is_reached_with_the_new_one():
    network = Network()
    a, b = network.add(1), network.add(2)
    a.sessions.introduce(b.id, static_key(77).public)
    a.connect(b)
    network.run(0.5)
    assert not up(a, b)
    a.knows(b)
    a.knows(b)
    network.run(5.0)
    assert up(a, b)


def test_no_handshake_is_started_with_a_node_whose_certificate_has_expired():
    network = Network()
    a, b = network.add(1), network.add(2)
    a.sessions.introduce(b.id, b.identity.static.public, WALL + 130)
    a.connect(b)
    network.run(1.0)
    assert up(a, b)
    network.run(150.0)  # the rekey at 120 s still took place
    made = a.sessions.rekeyed_at(b.id)
    assert 119 < made < 125
    network.run(made + 179.0)
    assert a.sessions.sending_keypair(b.id, network.now) is not None
    network.run(made + 190.0)
    assert a.sessions.sending_keypair(b.id, network.now) is None
    assert a.sessions.renew(b.id, b.endpoint, network.now) == [
        SessionDown(b.id, "its certificate has expired")
    ]
    assert not a.sessions.is_connecting(b.id)


def test_a_renewed_certificate_lets_handshakes_start_again():
    network = Network()
    a, b = network.add(1), network.add(2)
    a.sessions.introduce(b.id, b.identity.static.public, WALL)
    a.connect(b)
    network.run(1.0)
    assert not up(a, b)
    a.knows(b)
    a.connect(b)
    network.run(2.0)
    assert up(a, b)


def test_a_restarted_peer_is_back_at_once():
    network, a, b = two()
    a.connect(b)
    network.run(10.0)
    b = network.add(2, boot=2)
    b.knows(a)
    b.connect(a)
    network.run(10.1)
    assert up(a, b)
    assert b.send(a, b"again")
    assert a.send(b, b"hello")
    network.run(10.2)
    assert (a.id, b"hello") in b.received
    assert (b.id, b"again") in a.received


def test_renewing_finds_a_peer_that_lost_its_keys_and_keeps_the_old_ones_meanwhile():
    network, a, b = two()
    a.connect(b)
    network.run(10.0)
    b = network.add(2, boot=2)
    a.act(a.sessions.renew(b.id, b.endpoint, 10.0))
    assert a.sessions.sending_keypair(b.id, 10.0) is not None
    network.run(10.1)
    assert up(a, b)


def test_local_mistakes_are_state_errors():
    _, a, b = two()
    with pytest.raises(StateError):
        a.sessions.introduce(a.id, a.identity.static.public)
    with pytest.raises(AuthError):
        a.sessions.introduce(b.id, bytes(32))
    with pytest.raises(StateError):
        a.sessions.connect(signing_key(9).public, STRANGER, 0.0)
    with pytest.raises(StateError):
        a.sessions.renew(signing_key(9).public, STRANGER, 0.0)


def test_questions_about_unknown_nodes_have_empty_answers():
    _, a, _ = two()
    nobody = signing_key(9).public
    assert a.sessions.sending_keypair(nobody, 0.0) is None
    assert not a.sessions.is_connecting(nobody)
    assert a.sessions.established_at(nobody) is None
    assert a.sessions.rekeyed_at(nobody) is None
    assert a.sessions.observed_endpoint(nobody) is None
    assert a.sessions.close(nobody, 0.0) == []
    assert a.sessions.next_deadline() is None
    assert a.sessions.on_deadline(0.0) == []
    a.sessions.forget(nobody, 0.0)


@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_handshakes_complete_over_a_terrible_network(seed):
    network = Network(seed=seed, link=TERRIBLE)
    hub = network.add(200)
    leaves = [network.add(number) for number in range(100, 125)]
    for number, leaf in enumerate(leaves):
        leaf.knows(hub)
        hub.knows(leaf)
        # A third from either side, a third from both at once.
        if number % 3 != 1:
            leaf.connect(hub)
        if number % 3 != 0:
            hub.connect(leaf)
    for second in range(1, 120):
        network.run(float(second))
        for leaf in leaves:
            # A packet that finds no session starts a handshake, as in the engine.
            if not leaf.send(hub, b"x") and not hub.send(leaf, b"x"):
                leaf.connect(hub)
        if all(up(hub, leaf) for leaf in leaves):
            break
    assert all(up(hub, leaf) for leaf in leaves), f"seed {seed}"
    network.link = Link()
    for leaf in leaves:
        assert leaf.send(hub, b"real")
        assert hub.send(leaf, b"real")
    network.run(network.now + 2.0)
    assert {node for node, data in hub.received if data == b"real"} == {n.id for n in leaves}
    assert all((hub.id, b"real") in leaf.received for leaf in leaves)


def test_a_forgotten_peer_leaves_nothing_behind():
    network, a, b = two()
    empty = Network().add(1).sessions.snapshot()
    a.connect(b)
    network.run(1.0)
    stray = a.sessions.sending_keypair(b.id, 1.0)
    a.sessions.forget(b.id, 1.0)
    assert a.sessions.snapshot() == empty
    assert a.sessions.on_opened(stray, b.endpoint, 1.0) == []


def test_an_initiation_alone_changes_neither_keypair_nor_endpoint():
    network, a, b = two()
    a.connect(b)
    network.run(1.0)
    before = b.sessions.sending_keypair(a.id, 1.0)
    [fresh] = a.sessions.renew(b.id, b.endpoint, 1.0)
    [answer] = b.sessions.on_handshake_untrusted(fresh.datagram, STRANGER, 1.0)
    assert answer.endpoint == STRANGER
    assert b.sessions.sending_keypair(a.id, 1.0) is before
    assert b.sessions.snapshot().peers[0].endpoint == a.endpoint


def test_only_the_first_burst_under_the_new_keypair_moves_the_endpoint():
    _, a, b = two()
    datagram = initiation(a, b)
    [answer] = b.sessions.on_handshake_untrusted(datagram, a.endpoint, 0.0)
    assert b.sessions.sending_keypair(a.id, 0.0) is None
    a.sessions.on_handshake_untrusted(answer.datagram, b.endpoint, 0.0)
    burst = sealed(a.sessions.sending_keypair(b.id, 0.0), b"first")
    [keypair] = b.sessions.keypairs.values()
    assert opened(keypair, burst) == b"first"
    effects = b.sessions.on_opened(keypair, STRANGER, 0.0)
    assert effects[0] == SessionUp(a.id, STRANGER)
    assert keypair.confirmed
    assert b.sessions.on_opened(keypair, a.endpoint, 0.0) == []


def test_a_response_that_was_caught_and_sent_from_elsewhere_moves_no_address():
    network, a, b = two()
    [response] = b.sessions.on_handshake_untrusted(initiation(a, b), a.endpoint, 0.0)
    effects = a.sessions.on_handshake_untrusted(response.datagram, STRANGER, 0.0)
    assert effects[0] == SessionUp(b.id, b.endpoint)
    a.send(b, b"first")
    network.run(1.0)
    assert b.received == [(a.id, b"first")]
    assert up(a, b)


def test_an_answered_question_brings_the_session_to_where_it_was_asked():
    network, a, b = two()
    a.connect(b)
    network.run(1.0)
    [question] = a.sessions.ask_at(b.id, STRANGER, 1.0)
    assert question.endpoint == STRANGER
    [response] = b.sessions.on_handshake_untrusted(question.datagram, a.endpoint, 1.0)
    effects = a.sessions.on_handshake_untrusted(response.datagram, b.endpoint, 1.0)
    assert effects == [SessionUp(b.id, STRANGER)]


def test_a_replayed_initiation_is_refused_as_a_replay():
    _, a, b = two()
    datagram = initiation(a, b)
    b.sessions.on_handshake_untrusted(datagram, a.endpoint, 0.0)
    before = b.sessions.snapshot()
    with pytest.raises(AuthError) as refusal:
        b.sessions.on_handshake_untrusted(datagram, STRANGER, 0.0)
    assert refusal.value.reason is DropReason.REPLAYED
    assert b.sessions.snapshot() == before


def test_initiations_that_arrive_out_of_order_count_once_the_newest():
    _, a, b = two()
    old = initiation(a, b)
    [new] = a.sessions.on_deadline(1.2)
    b.sessions.on_handshake_untrusted(new.datagram, a.endpoint, 1.3)
    with pytest.raises(AuthError):
        b.sessions.on_handshake_untrusted(old, a.endpoint, 1.4)
    assert len(b.sessions.keypairs) == 1


def test_a_later_boot_beats_any_stamp_of_an_earlier_one():
    network, a, b = two()
    for _ in range(50):
        a.sessions.connect(b.id, b.endpoint, 0.0)
        a.sessions.close(b.id, 0.0)
    b.sessions.on_handshake_untrusted(initiation(a, b), a.endpoint, 0.0)
    reborn = network.add(1, boot=2)
    reborn.knows(b)
    assert b.sessions.on_handshake_untrusted(initiation(reborn, b), a.endpoint, 0.0)


def test_half_open_keypairs_are_bounded_and_the_oldest_goes():
    network = Network(settings=Settings(limits=Limits(half_open=3)))
    b = network.add(2)
    indexes = []
    for number in range(10, 15):
        a = network.add(number)
        a.knows(b)
        b.sessions.on_handshake_untrusted(initiation(a, b), a.endpoint, 0.0)
        indexes.append(list(b.sessions.keypairs)[-1])
        b.sessions.check_invariants()
    assert list(b.sessions.keypairs) == indexes[-3:]
    assert [peer.keypairs[2] is None for peer in b.sessions.snapshot().peers] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_half_open_keypairs_expire():
    _, a, b = two()
    b.sessions.on_handshake_untrusted(initiation(a, b), a.endpoint, 5.0)
    assert b.sessions.next_deadline() == 185.0
    assert b.sessions.on_deadline(184.9) == []
    assert len(b.sessions.keypairs) == 1
    assert b.sessions.on_deadline(185.0) == []
    assert b.sessions.keypairs == {}
    assert b.sessions.next_deadline() is None


def test_who_shook_hands_half_and_never_came_is_not_kept():
    _, a, b = two()
    for other in list(b.sessions.snapshot().peers):
        b.sessions.forget(other.node, 0.0)
    b.sessions.on_handshake_untrusted(initiation(a, b), a.endpoint, 5.0)
    b.sessions.on_look((), 6.0)
    assert [one.node for one in b.sessions.snapshot().peers] == [a.id], "it may still come"
    b.sessions.on_deadline(185.0)
    b.sessions.on_look({a.id}, 186.0)
    assert [one.node for one in b.sessions.snapshot().peers] == [a.id], "it has a path"
    b.sessions.on_look((), 187.0)
    assert not b.sessions.snapshot().peers
    b.sessions.check_invariants()


@pytest.fixture
def busy() -> tuple[Network, Node, Node, list[bytes]]:
    """`b` with a session to `a`, a half-open one, a handshake of its own, and what it has seen."""
    network, a, b = two()
    c, d = network.add(3), network.add(4)
    a.connect(b)
    network.run(1.0)
    c.knows(b)
    b.knows(d)
    seen = [datagram for _, target, datagram in network.sent if target == b.endpoint]
    half_open = initiation(c, b)
    b.sessions.on_handshake_untrusted(half_open, c.endpoint, 1.0)
    own = initiation(b, d)
    [response] = d.sessions.on_handshake_untrusted(own, b.endpoint, 1.0)
    seen += [half_open, response.datagram]
    return network, a, b, [datagram for datagram in seen if datagram[0] != 4]


def test_random_bytes_change_nothing_and_get_no_answer(busy):
    _, _, b, _ = busy

    @given(kind=st.sampled_from([0, 1, 2, 3, 5, 255]), rest=st.binary(max_size=400))
    @settings(max_examples=150)
    def check(kind, rest):
        refuse(b, bytes([kind]) + rest)

    check()


def test_nonsense_with_a_right_mac1_changes_nothing_and_gets_no_answer(busy):
    """Whoever knows our public key can make mac1, so it must not be enough for anything.

    The first 20 bytes are left out: mac1 is all that covers the sender's index, as in WireGuard.
    """
    _, _, b, seen = busy
    macs = MacMaker(b.identity.static.public)

    @given(
        message=st.sampled_from(seen),
        changes=st.dictionaries(st.integers(4, 130), st.integers(1, 255), min_size=1, max_size=8),
    )
    @settings(max_examples=150)
    def check(message, changes):
        changed = bytearray(message)
        for at, value in changes.items():
            changed[at % (len(message) - 32)] ^= value
        changed[:4] = message[:4]
        if any(changed[i] != message[i] for i in range(20, len(message) - 32)):
            refuse(b, macs.with_macs(bytes(changed), 1.0))

    check()


def test_truncated_and_extended_messages_change_nothing(busy):
    _, _, b, seen = busy
    assert {datagram[0] for datagram in seen} == {1, 2}
    for datagram in seen:
        for size in range(len(datagram)):
            refuse(b, datagram[:size])
        refuse(b, datagram + b"\0")


def test_one_flipped_bit_in_an_unseen_message_changes_nothing():
    """mac2 is left out: nobody looks at it unless under load."""
    network, a, b = two()
    d = network.add(4)
    b.knows(d)
    fresh = initiation(a, b)
    [response] = d.sessions.on_handshake_untrusted(initiation(b, d), b.endpoint, 0.0)
    for datagram in (fresh, response.datagram):
        for bit in range(0, (len(datagram) - 16) * 8, 5):
            flipped = bytearray(datagram)
            flipped[bit // 8] ^= 1 << bit % 8
            refuse(b, bytes(flipped))
    # The real ones are still welcome.
    assert b.sessions.on_handshake_untrusted(fresh, a.endpoint, 0.0)
    assert b.sessions.on_handshake_untrusted(response.datagram, d.endpoint, 0.0)


def test_replays_of_everything_seen_change_nothing(busy):
    _, _, b, seen = busy
    b.sessions.on_handshake_untrusted(seen[-1], Endpoint("192.0.2.4", 6875), 1.0)
    for datagram in seen:
        refuse(b, datagram)


def test_a_response_to_nobody_counts_as_an_unknown_index():
    _, a, b = two()
    [response] = b.sessions.on_handshake_untrusted(initiation(a, b), a.endpoint, 0.0)
    a.sessions.close(b.id, 0.0)
    with pytest.raises(AuthError) as refusal:
        a.sessions.on_handshake_untrusted(response.datagram, b.endpoint, 0.0)
    assert refusal.value.reason is DropReason.UNKNOWN_INDEX


def test_representations_and_snapshots_show_no_keys():
    network, a, b = two()
    a.connect(b)
    network.run(1.0)
    text = repr(a.sessions.snapshot()) + repr(a.sessions.keypairs) + repr(a.effects)
    for secret in (b"\x05" * 32, a.identity.static.seed, a.identity.signing.seed):
        assert repr(secret)[2:-1] not in text
        assert secret.hex() not in text
