"""What a gate does under load: cookies, and turns for those who wait. See `test_gate`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from hashlib import blake2s

import pytest

from overlay.config import Limits, Settings
from overlay.drops import DropReason
from overlay.effects import RemovalShown, Report
from overlay.errors import AuthError
from overlay.session.cookie import MacMaker
from overlay.session.handshake import read_initiation_untrusted
from overlay.session.handshake import refuse as made_refusal
from overlay.session.joiner import JoinSession
from overlay.session.ratelimit import (
    ANY_COOKIES,
    ANY_RESPONSES,
    ANY_TURNS,
    CALM,
    FAIR_TURNS,
    OWN_RESPONSES,
    PER_SOURCE,
)
from overlay.types import Endpoint
from overlay.wire.handshake import Initiation, RevokedPayload
from tests.support.session_net import (
    PSK,
    SECRET,
    STRANGER,
    TOKEN,
    Network,
    Node,
    initiation,
    join_session,
    refuse,
    two,
    up,
)


def under_load() -> tuple[Network, Node, Node]:
    return two(settings=Settings(limits=Limits(handshakes_per_second=0)))


def test_under_load_a_cookie_comes_back_and_the_next_try_shows_it():
    network, a, b = under_load()
    a.connect(b)
    network.run(0.5)
    assert not up(a, b)
    assert b.sessions.cookies_sent == 1
    network.run(2.0)
    assert up(a, b)
    assert b.sessions.cookies_sent == 1


def test_a_cookie_does_not_help_from_another_address():
    _, a, b = under_load()
    [cookie] = b.sessions.on_handshake_untrusted(initiation(a, b), a.endpoint, 0.0)
    a.sessions.on_handshake_untrusted(cookie.datagram, b.endpoint, 0.0)
    [retry] = a.sessions.on_deadline(1.2)
    [again] = b.sessions.on_handshake_untrusted(retry.datagram, STRANGER, 1.2)
    assert again.datagram[0] == 3
    assert b.sessions.keypairs == {}


def test_demanding_a_cookie_remembers_nothing():
    _, a, b = under_load()
    datagram = initiation(a, b)
    before = b.sessions.snapshot()
    for _ in range(3):
        [cookie] = b.sessions.on_handshake_untrusted(datagram, STRANGER, 0.0)
        assert cookie.endpoint == STRANGER
    assert b.sessions.snapshot() == before


def test_a_replayed_or_damaged_cookie_changes_nothing():
    _, a, b = under_load()
    [cookie] = b.sessions.on_handshake_untrusted(initiation(a, b), a.endpoint, 0.0)
    for bit in range(4 * 8, len(cookie.datagram) * 8):
        # The rest of the header carries nothing in a handshake message.
        if 64 <= bit < 128:
            continue
        flipped = bytearray(cookie.datagram)
        flipped[bit // 8] ^= 1 << bit % 8
        refuse(a, bytes(flipped))
    assert a.sessions.on_handshake_untrusted(cookie.datagram, b.endpoint, 0.0) == []
    assert a.sessions.snapshot().peers[0].cookie_until == 120.0
    refuse(a, cookie.datagram)


def test_load_is_measured_per_second_and_lasts_for_some():
    network, a, b = two(settings=Settings(limits=Limits(handshakes_per_second=1)))
    c = network.add(3)
    c.knows(b)
    [first] = b.sessions.on_handshake_untrusted(initiation(a, b), a.endpoint, 0.1)
    [second] = b.sessions.on_handshake_untrusted(initiation(c, b), c.endpoint, 0.9)
    assert (first.datagram[0], second.datagram[0]) == (2, 3)
    for now, kind in ((1.2, 3), (2.0 + CALM, 2)):
        c.sessions.close(b.id, now)
        [again] = c.sessions.connect(b.id, b.endpoint, now)
        [answer] = b.sessions.on_handshake_untrusted(again.datagram, c.endpoint, now)
        assert answer.datagram[0] == kind


def shaken(member: Node, joiner: JoinSession, source: Endpoint, now: float) -> bool:
    """Whether a joiner gets a keypair at once, or with the cookie that comes back."""
    for _ in range(2):
        try:
            [answer] = member.sessions.on_handshake_untrusted(joiner.start(now), source, now)
        except AuthError:
            return False
        if joiner.on_response_untrusted(answer.datagram, now) is not None:
            return True
    return False


def garbage(member: Node, count: int) -> list[bytes]:
    """Initiations with a valid mac1 and nothing else."""
    rng = random.Random(3)
    bare = Initiation(9, rng.randbytes(32), rng.randbytes(48), rng.randbytes(200))
    made = [replace(bare, ephemeral=rng.randbytes(32)).encode() for _ in range(count)]
    macs = MacMaker(member.identity.static.public)
    return [macs.with_macs(datagram, 0.0) for datagram in made]


def offered(member: Node, datagrams: Iterable[bytes], source: Endpoint, now: float) -> Counter[str]:
    """What becomes of initiations: `answered`, or why they are refused."""
    became: Counter[str] = Counter()
    for datagram in datagrams:
        try:
            member.sessions.on_handshake_untrusted(datagram, source, now)
            became["answered"] += 1
        except AuthError as refusal:
            became[refusal.reason] += 1
    return became


def with_cookies(
    member: Node, datagrams: Iterable[bytes], source: Endpoint, now: float
) -> list[bytes]:
    """The same with a mac2 that is valid for `source`."""
    cookie = member.sessions._gate._checker._cookie(source, now)
    return [
        whole[:-16] + blake2s(whole[:-16], key=cookie, digest_size=16).digest()
        for whole in datagrams
    ]


def besieged() -> tuple[Node, Node]:
    """A member that knows another, is under load, and hands out tokens."""
    network = Network(settings=Settings(limits=Limits(handshakes_per_second=0)))
    member = network.add(2, token_secret={TOKEN: SECRET}.get)
    return network.add(1), member


def test_copies_make_no_load_and_get_no_cookie():
    _, a, b = two(settings=Settings(limits=Limits(handshakes_per_second=1)))
    genuine = initiation(a, b)
    b.sessions.on_handshake_untrusted(genuine, a.endpoint, 0.0)
    became = offered(b, [genuine] * 50, STRANGER, 0.0)
    assert became == {DropReason.REPLAYED: 50}
    assert not b.sessions.load.loaded


def test_a_flood_from_one_address_leaves_turns_at_cookies_to_others():
    _, member = besieged()
    became = offered(member, garbage(member, 5000), STRANGER, 0.0)
    assert became == {"answered": PER_SOURCE + ANY_COOKIES, DropReason.RATE_LIMITED: 5000 - 210}
    assert shaken(member, join_session(), Endpoint("198.51.100.5", 5), 0.0)


def test_a_flood_from_a_whole_network_leaves_turns_at_cookies_to_others():
    _, member = besieged()
    for number, datagram in enumerate(garbage(member, 5000)):
        source = Endpoint(f"203.0.{number % 250}.{number // 250}", 999)
        offered(member, [datagram], source, 0.0)
    assert not shaken(member, join_session(), STRANGER, 0.0)
    assert shaken(member, join_session(seed=1), Endpoint("198.51.100.5", 5), 0.0)


def test_a_flood_that_shows_cookies_gets_few_looks_and_leaves_some_to_others():
    _, member = besieged()
    became = offered(
        member, with_cookies(member, garbage(member, 1000), STRANGER, 0.0), STRANGER, 0.0
    )
    # The first failure ends the fair turns of that address; what remains is the last heap.
    assert became[DropReason.BAD_HANDSHAKE] == 1 + ANY_TURNS
    assert became[DropReason.RATE_LIMITED] == 1000 - 1 - ANY_TURNS
    assert shaken(member, join_session(), Endpoint("198.51.100.5", 5), 0.0)


def test_ten_thousand_real_addresses_of_one_network_leave_turns_to_others():
    _, member = besieged()
    became: Counter[str] = Counter()
    for number, datagram in enumerate(garbage(member, 10_000)):
        source = Endpoint(f"203.0.{number % 250}.{number // 250}", 999)
        became += offered(member, with_cookies(member, [datagram], source, 0.0), source, 0.0)
    assert became[DropReason.BAD_HANDSHAKE] == FAIR_TURNS // 2 + ANY_TURNS
    assert shaken(member, join_session(), Endpoint("198.51.100.5", 5), 0.0)


def test_a_member_gets_in_at_its_address_when_all_other_turns_are_taken():
    """10,000 real addresses everywhere, and the same member before and after it was heard."""
    for known in (False, True):
        a, b = besieged()
        a.knows(b)
        if known:
            b.sessions._gate.limit.remember(a.id, a.endpoint.host)
        for number, datagram in enumerate(garbage(b, 1000)):
            source = Endpoint(f"203.{number % 250}.{number // 250}.1", 999)
            offered(b, with_cookies(b, [datagram], source, 0.0), source, 0.0)
        [own] = with_cookies(b, [initiation(a, b)], a.endpoint, 0.0)
        assert offered(b, [own], a.endpoint, 0.0)["answered"] == known


def test_a_confirmed_keypair_makes_the_address_that_of_a_member():
    network, a, b = two()
    assert (a.endpoint.host in b.sessions._gate.limit._members) is False
    a.connect(b)
    network.run(1.0)
    assert up(a, b)
    assert a.endpoint.host in b.sessions._gate.limit._members
    assert b.endpoint.host in a.sessions._gate.limit._members


def test_a_real_flood_from_everywhere_is_looked_at_once_a_minute_and_then_a_newcomer_gets_in():
    """No network to tell them by: 3,000 addresses that show cookies, each ten times a second."""
    _, member = besieged()
    sources = [Endpoint(f"{9 + n % 200}.{n // 200}.1.1", 999) for n in range(3000)]
    [datagram] = garbage(member, 1)
    shown = {source: with_cookies(member, [datagram], source, 0.0) for source in sources}
    looks = []
    for second in range(10):
        became: Counter[str] = Counter()
        for source in sources:
            became += offered(member, shown[source], source, float(second))
        looks.append(became[DropReason.BAD_HANDSHAKE])
    assert looks[0] == FAIR_TURNS + ANY_TURNS
    assert sum(looks) <= 3000 + 10 * ANY_TURNS
    assert looks[-1] == ANY_TURNS, "all have failed"
    assert shaken(member, join_session(), Endpoint("198.51.100.5", 5), 9.0)


def wrong_responses(to: Node, response: bytes, count: int) -> list[bytes]:
    """So many to the initiation that `response` answers, each another and none of them good."""
    macs, bare = MacMaker(to.identity.static.public), response[:40] + bytes(len(response) - 88)
    tails = [number.to_bytes(16, "big") + bytes(32) for number in range(count)]
    return [macs.with_macs(bare + tail, 0.0) for tail in tails]


def test_wrong_responses_to_a_handshake_that_runs_are_not_read_without_end():
    _, a, b = two()
    genuine = initiation(a, b)
    [response] = b.sessions.on_handshake_untrusted(genuine, a.endpoint, 0.0)
    wrong = wrong_responses(a, response.datagram, 2 * ANY_RESPONSES)
    became = offered(a, wrong, STRANGER, 0.0)
    assert became[DropReason.BAD_HANDSHAKE] == OWN_RESPONSES + ANY_RESPONSES
    assert became[DropReason.RATE_LIMITED] == ANY_RESPONSES - OWN_RESPONSES
    assert a.sessions.on_handshake_untrusted(response.datagram, b.endpoint, 1.0)


def test_wrong_responses_to_one_handshake_keep_no_other_from_its_own():
    """Whoever is asked knows the index, and may forge where its answers come from."""
    network, a, liar = two()
    honest = network.add(3)
    a.knows(honest)
    asked, other = initiation(a, liar), initiation(a, honest)
    [response] = liar.sessions.on_handshake_untrusted(asked, a.endpoint, 0.0)
    for host in ("192.0.2.1", "198.51.100.1", str(honest.endpoint.host)):
        wrong = wrong_responses(a, response.datagram, ANY_RESPONSES)
        offered(a, wrong, Endpoint(host, 1), 0.0)
    [genuine] = honest.sessions.on_handshake_untrusted(other, a.endpoint, 0.0)
    assert a.sessions.on_handshake_untrusted(genuine.datagram, honest.endpoint, 0.0)


def test_a_member_that_answers_with_what_proves_nothing_is_not_read_without_end():
    """It says that this node was removed, authentically, again and again: each is looked into."""
    _, a, b = two()
    received = read_initiation_untrusted(
        Initiation.decode_untrusted(initiation(a, b)), b.identity.static
    )
    noise, macs = received.noise, MacMaker(a.identity.static.public)
    refusals = []
    for number in range(OWN_RESPONSES + ANY_RESPONSES + 1):
        again = replace(received, noise=copy(noise))
        payload = RevokedPayload(b"proof of nothing")
        bare = made_refusal(again, PSK, payload, random.Random(number).randbytes)
        refusals.append(macs.with_macs(bare, 0.0))
    for refusal in refusals[:-1]:
        [shown] = a.sessions.on_handshake_untrusted(refusal, b.endpoint, 0.0)
        assert isinstance(shown, RemovalShown)
    with pytest.raises(AuthError) as error:
        a.sessions.on_handshake_untrusted(refusals[-1], b.endpoint, 0.0)
    assert error.value.reason is DropReason.RATE_LIMITED


def test_a_load_is_told_when_it_begins_and_when_it_has_ended():
    network = Network(settings=Settings(limits=Limits(handshakes_per_second=10)))
    member = network.add(2)
    assert member.sessions.on_look((), 0.0) == []
    offered(member, garbage(member, 11), STRANGER, 0.5)
    assert member.sessions.on_look((), 0.6) == [Report("load.begun", {"count": 0})]
    assert member.sessions.on_look((), 1.6) == []
    assert member.sessions.load.rate == 11
    assert member.sessions.on_look((), CALM + 0.9) == []
    assert member.sessions.on_look((), CALM + 1.0) == [Report("load.ended", {"count": 0})]
    assert member.sessions.on_look((), CALM + 2.0) == []
