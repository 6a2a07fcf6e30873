"""Tests of overlay.joining: a joiner against real sessions and a real registrar."""

from __future__ import annotations

import heapq
import random
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.admission import Registrar
from overlay.catalog.reader import Reader
from overlay.catalog.trust import Trust
from overlay.channel import Channel
from overlay.config import Limits, Settings
from overlay.effects import Effect, SendDatagram
from overlay.errors import StateError
from overlay.joining import ASK_TRIES, Joiner, Phase
from overlay.session.sessions import Sessions
from overlay.types import Endpoint, NodeId
from overlay.wall import Wall
from overlay.wire.header import TYPE_DATA, Header
from overlay.wire.items import Item
from overlay.wire.messages import JoinGrant, JoinRequest, Probe, Refusal
from overlay.wire.token import JoinToken
from tests.support.clusters import (
    AUTHORITY,
    WALL,
    YEAR,
    make_cluster,
    make_identity,
    resign,
    signing_key,
    static_key,
)

CLUSTER = make_cluster()
PSK = b"\x05" * 32
ITEMS = (Item(b"n" * 33, 1, random.Random(3).randbytes(20_000)),)
HERE = Endpoint("198.51.100.7", 6875)
MEMBER = Endpoint("192.0.2.1", 6875)
NOBODY = Endpoint("192.0.2.99", 6875)


class Member:
    """A node that holds the authority's key: sessions, and the registrar behind them."""

    def __init__(self, seed: int = 0, **changes: object) -> None:
        rng = random.Random(seed)
        self.entropy = rng.randbytes
        self.identity = make_identity(0, CLUSTER)
        self.registrar = Registrar(AUTHORITY, cluster=CLUSTER, psk=PSK, tokens=b"", names=b"")
        self.sessions = Sessions(
            identity=self.identity,
            psk=PSK,
            boot=1,
            settings=changes.get("settings", Settings()),
            wall=Wall(WALL),
            entropy=rng.randbytes,
            rng=rng,
            token_secret=lambda token: self.registrar.tokens.secret(token, WALL),
            read_certificate=Reader(CLUSTER, Limits()).certificate,
        )
        self.forge = lambda answer: answer
        self.deaf = False
        self.requests: list[JoinRequest] = []
        self._channels: dict[int, Channel] = {}

    def mint(self, *endpoints: Endpoint, ttl: float = 3600.0) -> JoinToken:
        return self.registrar.tokens.mint(
            ttl,
            member=self.identity,
            pinned=CLUSTER.authority_fingerprint,
            endpoints=endpoints or (MEMBER,),
            entropy=self.entropy,
            wall=WALL,
        )

    def on_datagram(self, datagram: bytes, source: Endpoint, now: float) -> list[bytes]:
        """The datagrams it answers with."""
        header = Header.decode_untrusted(datagram)
        if header.type != TYPE_DATA:
            effects = self.sessions.on_handshake_untrusted(datagram, source, now)
            return [each.datagram for each in effects if isinstance(each, SendDatagram)]
        keypair = self.sessions.keypairs.get(header.receiver)
        if keypair is None or self.deaf:
            return []
        settings = Settings()
        channel = self._channels.setdefault(
            header.receiver, Channel(keypair, settings.timing, settings.limits)
        )
        answers = []
        for request in channel.open_untrusted(datagram, now):
            self.sessions.on_opened(keypair, source, now)
            assert isinstance(request, JoinRequest)
            self.requests.append(request)
            decision = self.registrar.on_join_request(
                request,
                token=keypair.joiner_token,
                joiner=keypair.joiner,
                items=ITEMS,
                gone=frozenset(),
                wall=WALL + now,
            )
            answers += channel.seal(self.forge(decision.answer))
        return answers


class Net:
    """One joiner and one member on virtual time."""

    def __init__(self, member: Member, *, loss: float = 0.0, rtt: float = 0.02) -> None:
        self.member = member
        self.loss = loss
        self.rtt = rtt
        self.now = 0.0
        self.sent: list[tuple[float, Endpoint]] = []
        self._rng = random.Random(11)
        self._heap: list[tuple[float, int, bool, bytes]] = []
        self._order = count()

    def act(self, effects: list[Effect]) -> None:
        for effect in effects:
            assert isinstance(effect, SendDatagram)
            self.sent.append((self.now, effect.endpoint))
            if effect.endpoint == MEMBER:
                self.put(effect.datagram, to_member=True)

    def put(self, datagram: bytes, *, to_member: bool) -> None:
        if self._rng.random() >= self.loss:
            at = self.now + self.rtt / 2
            heapq.heappush(self._heap, (at, next(self._order), to_member, datagram))

    def run(self, joiner: Joiner, until: float = 60.0) -> Joiner:
        self.act(joiner.start(self.now))
        return self.resume(joiner, until)

    def resume(self, joiner: Joiner, until: float = 60.0) -> Joiner:
        while not joiner.finished:
            due = joiner.next_deadline()
            assert due is not None
            at = min(due, self._heap[0][0]) if self._heap else due
            if at > until:
                break
            self.now = max(self.now, at)
            if not self._heap or due < self._heap[0][0]:
                self.act(joiner.on_deadline(self.now))
                continue
            _, _, to_member, datagram = heapq.heappop(self._heap)
            if not to_member:
                self.act(joiner.on_datagram_untrusted(datagram, MEMBER, self.now))
                continue
            for answer in self.member.on_datagram(datagram, HERE, self.now):
                self.put(answer, to_member=False)
        return joiner


def joiner_of(token: JoinToken, number: int = 1, **changes: object) -> Joiner:
    arguments: dict[str, object] = {
        "token": token,
        "signing": signing_key(number),
        "static": static_key(number),
        "name": f"node{number}",
        "settings": Settings(),
        "entropy": random.Random(number).randbytes,
        "rng": random.Random(number),
        "epoch": WALL,
    }
    return Joiner(**{**arguments, **changes})


def code_of(joiner: Joiner) -> str:
    assert joiner.phase is Phase.FAILED
    assert joiner.failure is not None
    assert joiner.outcome is None
    assert joiner.next_deadline() is None
    return joiner.failure.code


# -- the usual case ----------------------------------------------------------------------------


def test_a_joiner_becomes_a_member_in_two_round_trips() -> None:
    member = Member()
    net = Net(member)
    joiner = net.run(joiner_of(member.mint()))
    assert joiner.phase is Phase.DONE
    outcome = joiner.outcome
    assert outcome is not None
    assert net.now == pytest.approx(2 * net.rtt)
    assert (outcome.cluster, outcome.psk, outcome.items) == (CLUSTER, PSK, ITEMS)
    assert outcome.member == MEMBER
    Trust.founded(CLUSTER).check_certificate(outcome.certificate, WALL)
    assert outcome.certificate.node == signing_key(1).public
    assert outcome.certificate.static == static_key(1).public
    assert outcome.certificate.name == "node1"
    assert joiner.next_deadline() is None
    assert joiner.on_deadline(net.now) == []


@pytest.mark.parametrize("prefer_aes", [True, False])
def test_both_ciphers_will_do(prefer_aes: bool) -> None:
    member = Member()
    joiner = joiner_of(member.mint(), settings=Settings(prefer_aes=prefer_aes))
    assert Net(member).run(joiner).phase is Phase.DONE


def test_every_endpoint_of_the_token_is_tried_in_turn() -> None:
    member = Member()
    net = Net(member)
    joiner = net.run(joiner_of(member.mint(NOBODY, Endpoint("::1", 1), MEMBER)))
    assert joiner.phase is Phase.DONE
    assert [endpoint for _, endpoint in net.sent[:3]] == [NOBODY, Endpoint("::1", 1), MEMBER]


def test_a_far_member_gets_its_time() -> None:
    member = Member()
    net = Net(member, rtt=1.5)
    assert net.run(joiner_of(member.mint())).phase is Phase.DONE


@pytest.mark.parametrize("seed", range(3))
def test_lost_datagrams_are_repeated(seed: int) -> None:
    member = Member(seed)
    joiner = Net(member, loss=0.2).run(joiner_of(member.mint(), number=seed + 1))
    assert joiner.phase is Phase.DONE
    assert {request.request for request in member.requests} == {member.requests[0].request}


def test_a_member_that_restarts_is_asked_again_under_new_keys() -> None:
    member = Member()
    net = Net(member)
    member.deaf = True
    joiner = net.run(joiner_of(member.mint()), until=1.0)
    assert joiner.phase is Phase.ASKING
    net.member = Member(7)
    net.member.registrar = member.registrar
    net.resume(joiner)
    assert joiner.phase is Phase.DONE
    assert net.now < (ASK_TRIES + 2) * Settings().timing.request_retry


def test_a_member_under_load_is_answered_with_its_cookie() -> None:
    limits = replace(Settings().limits, handshakes_per_second=0)
    member = Member(settings=replace(Settings(), limits=limits))
    joiner = Net(member).run(joiner_of(member.mint()))
    assert joiner.phase is Phase.DONE


# -- refusals ----------------------------------------------------------------------------------


def test_a_token_admits_one_node_and_the_same_node_again() -> None:
    member = Member()
    token = member.mint()
    first = Net(member).run(joiner_of(token, 1))
    again = Net(member).run(joiner_of(token, 1, entropy=random.Random(5).randbytes))
    assert first.outcome is not None
    assert again.outcome == first.outcome
    other = Net(member).run(joiner_of(token, 2))
    assert code_of(other) == "token-used"
    assert other.failure is not None
    assert "muslin token" in other.failure.fix


def test_an_expired_token_says_so() -> None:
    member = Member()
    assert code_of(Net(member).run(joiner_of(member.mint(ttl=0.0)))) == "token-expired"


def test_a_name_is_given_once() -> None:
    member = Member()
    Net(member).run(joiner_of(member.mint(), 1))
    joiner = Net(member).run(joiner_of(member.mint(), 2, name="node1"))
    assert code_of(joiner) == "name-taken"
    assert joiner.failure is not None
    assert "--name" in joiner.failure.fix


def test_without_an_answer_it_gives_up_and_says_where_it_tried() -> None:
    member = Member()
    joiner = Net(member).run(joiner_of(member.mint(NOBODY, Endpoint("::1", 1))))
    assert code_of(joiner) == "no-answer"
    assert not joiner.answered
    assert "192.0.2.99:6875, [::1]:1" in str(joiner.failure)


def test_a_member_that_never_decides_is_told_from_one_that_is_not_there() -> None:
    member = Member()
    member.deaf = True
    joiner = Net(member).run(joiner_of(member.mint()))
    assert code_of(joiner) == "no-answer"
    assert joiner.answered
    assert "192.0.2.1:6875 answered" in str(joiner.failure)


def test_a_token_with_a_useless_key_fails_at_once() -> None:
    joiner = joiner_of(replace(Member().mint(), static=bytes(32)))
    assert joiner.start(0.0) == []
    assert code_of(joiner) == "bad-token"


def test_a_wrong_secret_gets_no_session() -> None:
    member = Member()
    token = replace(member.mint(), secret=bytes(32))
    assert code_of(Net(member).run(joiner_of(token))) == "no-answer"


# -- grants that prove nothing -------------------------------------------------------------------

OTHER_AUTHORITY = signing_key(99)


def other_cluster() -> bytes:
    cluster = replace(CLUSTER, authority=OTHER_AUTHORITY.public)
    signature = OTHER_AUTHORITY.sign("cluster", cluster.signed_bytes())
    return replace(cluster, signature=signature).encode()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cluster": other_cluster()}, "not those that were pinned"),
        ({"cluster": replace(CLUSTER, created=1).encode()}, "not signed"),
        ({"cluster": resign(replace(CLUSTER, id=bytes(8))).encode()}, "another cluster"),
        ({"cluster": b""}, "cluster"),
        ({"certificate": b"\x90"}, "certificate"),
        ({"certificate": make_identity(2).certificate.encode()}, "not for this node"),
        (
            {
                "certificate": replace(
                    make_identity(1).certificate, not_after=WALL + 2 * YEAR
                ).encode()
            },
            "not signed",
        ),
    ],
)
def test_a_grant_that_proves_nothing_is_refused(change: dict[str, bytes], why: str) -> None:
    member = Member()
    member.forge = lambda answer: replace(answer, **change)
    joiner = Net(member).run(joiner_of(member.mint()))
    assert code_of(joiner) == "bad-grant"
    assert why in str(joiner.failure)


def test_a_clock_that_is_years_off_is_named_as_the_cause() -> None:
    member = Member()
    joiner = Net(member).run(joiner_of(member.mint(), epoch=0.0))
    assert code_of(joiner) == "bad-grant"
    assert "clock" in str(joiner.failure)


@pytest.mark.parametrize(
    "forge",
    [
        lambda answer: replace(answer, request=answer.request ^ 1),
        lambda answer: Refusal(answer.request ^ 1, "token-used", "no"),
        lambda answer: Probe(1),
    ],
)
def test_what_answers_another_request_is_ignored(forge: object) -> None:
    member = Member()
    member.forge = forge
    joiner = joiner_of(member.mint())
    Net(member).run(joiner, until=5.0)
    assert joiner.phase is Phase.ASKING


# -- strangers ---------------------------------------------------------------------------------


@settings(max_examples=60)
@given(data=st.data())
def test_datagrams_of_strangers_change_nothing(data: st.DataObject) -> None:
    """Random bytes and damaged copies of real answers, in both phases."""
    member = Member()
    joiner = joiner_of(member.mint())
    (initiation,) = joiner.start(0.0)
    (response,) = member.on_datagram(initiation.datagram, HERE, 0.0)
    # Reserved header fields and mac2 of a response are ignored, so damage there is none.
    answer, protected = response, [0, *range(4, 8), *range(16, len(response) - 16)]
    if data.draw(st.booleans()):
        (request,) = joiner.on_datagram_untrusted(response, MEMBER, 0.0)
        answer = member.on_datagram(request.datagram, HERE, 0.0)[0]
        protected = list(range(len(answer)))
    before = joiner.snapshot()
    at = data.draw(st.sampled_from(protected))
    damaged = bytearray(answer)
    damaged[at] ^= data.draw(st.integers(1, 255))
    for datagram in (
        data.draw(st.binary(max_size=100)),
        bytes(damaged),
        answer[:at],
        initiation.datagram,
    ):
        assert joiner.on_datagram_untrusted(datagram, NOBODY, 0.0) == []
        assert joiner.snapshot() == before


def test_nothing_happens_before_the_start_and_after_the_end() -> None:
    member = Member()
    joiner = joiner_of(member.mint())
    assert joiner.next_deadline() is None
    assert joiner.on_deadline(0.0) == []
    assert joiner.on_datagram_untrusted(b"x" * 100, MEMBER, 0.0) == []
    Net(member).run(joiner)
    assert joiner.on_datagram_untrusted(b"x" * 100, MEMBER, 1.0) == []
    with pytest.raises(StateError):
        joiner.start(1.0)


def test_the_grant_is_for_the_node_that_signed_the_request() -> None:
    member = Member()
    Net(member).run(joiner_of(member.mint()))
    (request,) = member.requests
    grant = member.registrar.on_join_request(
        replace(request, static=bytes(32)),
        token=next(iter(member.registrar.tokens._tokens)),
        joiner=NodeId(signing_key(1).public),
        items=(),
        gone=frozenset(),
        wall=WALL,
    ).answer
    assert not isinstance(grant, JoinGrant)
    assert grant.code == "bad-signature"
