"""Tests of overlay.renewal."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_network

import pytest

from overlay import renewal
from overlay.catalog.reader import Reader
from overlay.config import Limits, Timing
from overlay.effects import Effect, SendControl
from overlay.errors import AuthError, ConfigError, WireError
from overlay.renewal import CHECKS, Renewal, check_grant, present_identity
from overlay.types import NodeId
from overlay.validity import RENEW_SHARE, last_part
from overlay.wall import Wall
from overlay.wire.certificate import Certificate, issue_certificate
from overlay.wire.control import decode_untrusted
from overlay.wire.messages import Refusal, RenewGrant, RenewRequest
from tests.support.clusters import (
    AUTHORITY,
    WALL,
    YEAR,
    make_cluster,
    make_identity,
    signing_key,
    static_key,
)

CLUSTER = make_cluster()
OLD = make_identity(1, CLUSTER).certificate
DUE = last_part(OLD, RENEW_SHARE) + 10.0
ONE, TWO = make_identity(8, CLUSTER).node, make_identity(9, CLUSTER).node
READER = Reader(CLUSTER, Limits())


def read(data: bytes) -> Certificate:
    """As a member of a cluster with one authority does."""
    certificate = READER.certificate(data)
    if certificate.issuer != CLUSTER.authority:
        raise AuthError("by an authority that is not trusted")
    return certificate


def issued(authority=AUTHORITY, **changes: object) -> Certificate:
    """What node 1 gets in place of its certificate, but for some changes."""
    fields = {
        "node": OLD.node,
        "static": OLD.static,
        "name": OLD.name,
        "cluster": OLD.cluster,
        "serial": OLD.serial + 5,
        "not_before": int(DUE) - 3600,
        "not_after": int(DUE) + YEAR,
    }
    return issue_certificate(authority, **(fields | changes))


GOOD = issued()

# -- what a grant must be --------------------------------------------------------------------------

WRONG: dict[str, Certificate] = {
    "it is for another node": issued(node=signing_key(2).public),
    "it is for another key": issued(static=static_key(2).public),
    "it is for another name": issued(name="node2"),
    "it is for another cluster": issued(cluster=bytes(8)),
    "it allows other routes": issued(routes=[ip_network("192.0.2.0/24")]),
    "its serial is not greater": issued(serial=OLD.serial),
    "it does not end later": issued(not_after=OLD.not_after),
    "it is not valid yet (is the clock right?)": issued(not_before=int(DUE) + 60),
    "it is not valid any more (is the clock right?)": issued(not_after=OLD.not_after + 1),
}
"""One certificate for each check, with which nothing else is wrong."""

LATE = "it is not valid any more (is the clock right?)"


def wall_of(check: str) -> float:
    return OLD.not_after + 5.0 if check == LATE else DUE


def decoded(data: bytes) -> Certificate:
    """Believes every signature: what is looked at is looked at here."""
    return Certificate.decode_untrusted(data)


def refuse(check: str) -> None:
    """The proof that a check holds."""
    with pytest.raises(AuthError) as caught:
        check_grant(WRONG[check].encode(), OLD, decoded, wall_of(check))
    assert str(caught.value) == check


def test_a_good_grant_is_taken() -> None:
    assert check_grant(GOOD.encode(), OLD, read, DUE) == GOOD


def test_every_check_has_its_wrong_certificate() -> None:
    assert WRONG.keys() == CHECKS.keys()


@pytest.mark.parametrize("check", CHECKS)
def test_a_certificate_with_which_one_thing_is_wrong_is_refused(check: str) -> None:
    refuse(check)


@pytest.mark.parametrize("check", CHECKS)
def test_each_check_is_alive(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    others = {what: holds for what, holds in CHECKS.items() if what != check}
    monkeypatch.setattr(renewal, "CHECKS", others)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        refuse(check)


FORGED = issued(signing_key(77))
"""As it should be, but signed by somebody who is no authority."""


def test_who_signed_it_is_asked_first() -> None:
    with pytest.raises(AuthError, match="not trusted"):
        check_grant(FORGED.encode(), OLD, read, DUE)
    with pytest.raises(AuthError, match="not signed by its issuer"):
        check_grant(replace(GOOD, serial=99).encode(), OLD, read, DUE)
    with pytest.raises(WireError):
        check_grant(b"nothing", OLD, read, DUE)


def test_that_question_is_alive() -> None:
    assert check_grant(FORGED.encode(), OLD, decoded, DUE) == FORGED


# -- with what a node starts -----------------------------------------------------------------------


def test_the_newer_certificate_counts_at_a_start() -> None:
    joined = make_identity(1, CLUSTER)
    assert present_identity(joined, b"").certificate == OLD
    renewed = present_identity(joined, GOOD.encode())
    assert (renewed.certificate, renewed.kept) == (GOOD, GOOD.encode())
    assert joined.certificate == OLD, "the one given is not changed"
    earlier = issued(serial=OLD.serial - 1)
    assert present_identity(joined, earlier.encode()).certificate == OLD


@pytest.mark.parametrize(
    "change",
    [
        {"node": signing_key(2).public},
        {"static": static_key(2).public},
        {"name": "node2"},
        {"cluster": bytes(8)},
    ],
)
def test_a_stored_certificate_of_another_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="for other keys, or of another cluster"):
        present_identity(make_identity(1, CLUSTER), issued(**change).encode())


def test_a_damaged_stored_certificate_is_refused() -> None:
    with pytest.raises(ConfigError, match="the stored certificate: "):
        present_identity(make_identity(1, CLUSTER), GOOD.encode()[:-1])


# -- asking ----------------------------------------------------------------------------------------


class Play:
    """The renewal of node 1, among members that can certify."""

    def __init__(self, *certifiers: NodeId, wall: float = DUE, **timing: float) -> None:
        self.identity = make_identity(1, CLUSTER)
        self.ready = list(certifiers)
        self.issuer = AUTHORITY.public
        self.wall = Wall(wall)
        self.timing = Timing(**timing)
        self.machine = Renewal(
            identity=self.identity,
            timing=self.timing,
            rng=random.Random(5),
            wall=self.wall,
            certifiers=lambda _: self.ready,
            issuer=lambda: self.issuer,
            read=read,
            name_of=lambda node: {ONE: "one", TWO: "two"}[node],
        )

    def begin(self) -> float:
        """Look at 0.0; when it asks first."""
        self.machine.on_look(0.0)
        at = self.machine.next_deadline()
        assert at is not None
        return at

    def asked(self, now: float) -> tuple[NodeId, int] | None:
        """Let a deadline come; who is asked, with which number."""
        return question(self.machine.on_deadline(now))


def question(effects: list[Effect]) -> tuple[NodeId, int] | None:
    if not effects:
        return None
    (effect,) = effects
    assert isinstance(effect, SendControl)
    message = decode_untrusted(effect.message)
    assert isinstance(message, RenewRequest)
    return effect.node, message.request


def asked_once(*certifiers: NodeId) -> tuple[Play, NodeId, int]:
    play = Play(*certifiers)
    found = play.asked(play.begin())
    assert found is not None
    return play, *found


def test_nothing_is_asked_before_it_is_due() -> None:
    play = Play(ONE, wall=DUE - 60.0)
    play.machine.on_look(0.0)
    assert (play.machine.wanted, play.machine.next_deadline()) == (False, None)
    play.machine.on_look(60.0)
    assert play.machine.wanted


def test_all_nodes_do_not_ask_at_once() -> None:
    assert 0.0 < Play(ONE).begin() <= Timing().renew_spread
    assert Play(ONE, renew_spread=0.0).begin() == 0.0


def test_it_asks_for_ever_with_growing_patience() -> None:
    play = Play(ONE)
    at, waits = play.begin(), []
    for _ in range(40):
        assert play.asked(at) == (ONE, play.machine._request)
        following = play.machine.next_deadline()
        assert following is not None
        waits.append(following - at)
        at = following
    first, longest = play.timing.renew_retry, play.timing.renew_retry_max
    assert first / 2 <= waits[0] <= first
    assert waits[:6] == sorted(waits[:6])
    assert all(longest / 2 <= wait <= longest for wait in waits[10:])
    assert len(set(waits[10:])) > 20, "clusters do not ask in step"


def test_it_is_not_asked_before_the_deadline() -> None:
    play = Play(ONE)
    assert play.machine.on_deadline(play.begin() - 1.0) == []


def test_all_that_can_certify_are_asked_in_turn() -> None:
    play = Play(ONE, TWO)
    at, order = play.begin(), []
    for _ in range(6):
        found = play.asked(at)
        assert found is not None
        order.append(found[0])
        at = play.machine.next_deadline() or 0.0
    assert order in ([ONE, TWO] * 3, [TWO, ONE] * 3)


def test_without_anybody_to_ask_it_says_so_and_goes_on() -> None:
    play = Play()
    assert play.asked(play.begin()) is None
    assert play.machine.why == "no node that holds the authority's key is reachable"
    play.ready = [ONE]
    assert play.asked(play.machine.next_deadline() or 0.0) is not None
    assert play.machine.why == "one was asked and has not answered"


def test_an_answer_to_the_question_brings_a_certificate() -> None:
    play, node, request = asked_once(ONE)
    found = play.machine.on_grant(node, RenewGrant(request, GOOD.encode()), 1.0)
    assert found == (GOOD, [])
    assert play.machine.wanted, "it is not stored yet"
    play.identity.keep(GOOD)
    play.identity.use_kept()
    play.machine.on_look(2.0)
    assert (play.machine.wanted, play.machine.why) == (False, "")


@pytest.mark.parametrize("wrong", ["number", "member", "nothing asked"])
def test_an_answer_to_something_else_changes_nothing(wrong: str) -> None:
    play, node, request = asked_once(ONE)
    if wrong == "nothing asked":
        play.wall.epoch = WALL
        play.machine.on_look(1.0)
    before = play.machine.snapshot()
    sender, number = (
        TWO if wrong == "member" else node,
        request + (wrong == "number"),
    )
    assert play.machine.on_grant(sender, RenewGrant(number, GOOD.encode()), 1.0) == (None, [])
    assert play.machine.on_refusal(sender, Refusal(number, "not-due", "no")) == []
    assert play.machine.snapshot() == before


def test_a_bad_grant_is_told_and_another_is_asked_for() -> None:
    play, node, request = asked_once(ONE)
    grant = RenewGrant(request, WRONG["it is for another name"].encode())
    certificate, (report,) = play.machine.on_grant(node, grant, 1.0)
    assert certificate is None
    assert report.event == "certificate.refused"
    why = "one sent a certificate that is not used: it is for another name"
    assert (play.machine.why, play.machine.refused) == (why, True)
    assert play.asked(play.machine.next_deadline() or 0.0) == (ONE, request)
    assert play.machine.why == why, "what was said is worth more than that it was asked again"


def test_a_refusal_is_told() -> None:
    play, node, request = asked_once(ONE)
    (report,) = play.machine.on_refusal(node, Refusal(request, "not-stored", "its disk is full"))
    assert report.fields == {"peer": "one", "why": "declined: its disk is full"}
    assert (play.machine.why, play.machine.refused) == ("one declined: its disk is full", True)


def test_when_another_authority_signs_it_is_asked_for() -> None:
    play = Play(ONE, wall=WALL + 1.0)
    play.machine.on_look(0.0)
    assert not play.machine.wanted
    play.issuer = signing_key(77).public
    play.machine.on_look(1.0)
    assert play.machine.wanted


def test_a_clock_that_is_set_makes_nobody_wait() -> None:
    play = Play(ONE, wall=WALL)
    play.machine.on_look(0.0)
    play.wall.epoch = DUE  # it was a year slow
    at = play.begin()
    assert play.asked(at) is not None
    play.wall.epoch = WALL
    play.machine.on_look(at + 1.0)
    assert not play.machine.wanted


def test_short_lives_are_asked_for_soon() -> None:
    play = Play(ONE)
    short = issued(serial=OLD.serial + 1, not_before=int(DUE) - 55, not_after=int(DUE) + 5)
    play.identity.keep(short)
    play.identity.use_kept()
    at = play.begin()
    assert at <= 1.0
    play.asked(at)
    assert (play.machine.next_deadline() or 0.0) - at <= 0.6
