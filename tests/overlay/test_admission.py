"""Tests of overlay.admission."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_network

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from overlay import keys
from overlay.admission import RENEWABLE, SERIAL_LEAP, Decision, Registrar, join_signed_bytes
from overlay.catalog.trust import Trust
from overlay.config import CERTIFICATE_LIFETIME
from overlay.errors import RefusedError, WireError
from overlay.keys import LockedKey
from overlay.types import Endpoint, NodeId
from overlay.validity import BACKDATED, RENEW_SHARE, last_part, validity
from overlay.wire.certificate import Certificate, issue_certificate
from overlay.wire.items import Item
from overlay.wire.messages import JoinGrant, JoinRequest, Refusal
from overlay.wire.token import JoinToken
from tests.support.clusters import (
    AUTHORITY,
    WALL,
    make_cluster,
    make_identity,
    signing_key,
    static_key,
)

CLUSTER = make_cluster()
PSK = b"p" * 32
ITEMS = (Item(b"n" * 33, 1, b"record"),)


def registrar_of(tokens: bytes = b"", names: bytes = b"") -> Registrar:
    return Registrar(AUTHORITY, cluster=CLUSTER, psk=PSK, tokens=tokens, names=names)


def mint(registrar: Registrar, ttl: float = 3600.0, wall: float = WALL, seed: int = 1) -> JoinToken:
    return registrar.tokens.mint(
        ttl,
        member=make_identity(0, CLUSTER),
        pinned=CLUSTER.authority_fingerprint,
        endpoints=(Endpoint("192.0.2.1", 6875),),
        entropy=random.Random(seed).randbytes,
        wall=wall,
    )


def ask(
    registrar: Registrar,
    token: bytes,
    number: int = 1,
    name: str = "",
    *,
    gone: tuple[str, ...] = (),
    removed: tuple[NodeId, ...] = (),
    wall: float = WALL,
    **changes: object,
) -> Decision:
    """What the registrar says to node `number`."""
    static, name = static_key(number).public, name or f"node{number}"
    signature = signing_key(number).sign("join", token + static + name.encode())
    request = JoinRequest(request=77, name=name, static=static, signature=signature)
    return registrar.on_join_request(
        replace(request, **changes),
        token=token,
        joiner=signing_key(number).public,
        items=ITEMS,
        gone=frozenset(gone),
        removed=removed,
        wall=wall,
    )


def certificate_of(decision: Decision) -> Certificate:
    assert isinstance(decision.answer, JoinGrant)
    certificate = Certificate.decode_untrusted(decision.answer.certificate)
    Trust.founded(CLUSTER).check_certificate(certificate, WALL)
    return certificate


def code_of(decision: Decision) -> str:
    assert isinstance(decision.answer, Refusal)
    assert decision.answer.request == 77
    assert not decision.changed
    return decision.answer.code


def test_the_keys_of_a_removed_node_are_not_certified_again() -> None:
    registrar = registrar_of()
    token = mint(registrar).id
    refused = ask(registrar, token, removed=(signing_key(1).public,))
    assert isinstance(refused.answer, Refusal)
    assert (refused.answer.code, refused.changed) == ("node-removed", False)
    assert ask(registrar, token, 2, removed=(signing_key(1).public,)).changed


# -- renewing ----------------------------------------------------------------------------------

OLD = make_identity(1, CLUSTER).certificate
DUE = last_part(OLD, RENEW_SHARE)


def renewal_code(
    registrar: Registrar, old: Certificate = OLD, wall: float = DUE, **given: object
) -> str:
    before = registrar.encode()
    with pytest.raises(RefusedError) as caught:
        registrar.renew(old, wall=wall, **given)
    assert registrar.encode() == before, "a refused request changes nothing"
    return caught.value.code


def test_a_renewed_certificate_is_the_old_one_for_longer() -> None:
    old = issue_certificate(
        AUTHORITY,
        **{name: getattr(OLD, name) for name in ("node", "static", "name", "cluster", "serial")},
        not_before=OLD.not_before,
        not_after=OLD.not_after,
        routes=[ip_network("192.0.2.0/24")],
    )
    registrar = registrar_of()
    new, changed = registrar.renew(old, wall=DUE)
    assert changed
    same = ("node", "static", "name", "cluster", "issuer", "routes")
    assert [getattr(new, name) for name in same] == [getattr(old, name) for name in same]
    assert new.serial > old.serial
    assert new.not_before == validity(DUE, CERTIFICATE_LIFETIME)[0]
    assert new.not_after > old.not_after
    Trust.founded(CLUSTER).check_certificate(new, DUE)
    assert registrar.holder(old.name) == old.node


def test_a_renewed_certificate_never_ends_before_the_old_one() -> None:
    registrar = Registrar(
        AUTHORITY, cluster=CLUSTER, psk=PSK, tokens=b"", names=b"", lifetime=86_400
    )
    new, _ = registrar.renew(OLD, wall=DUE)
    assert new.not_after == OLD.not_after + 1


def test_who_asks_again_gets_the_same_until_that_is_due() -> None:
    registrar = registrar_of()
    wall = OLD.not_after - 60.0
    first, _ = registrar.renew(OLD, wall=wall)
    stored = registrar.encode()
    assert registrar.renew(OLD, wall=wall + 30.0) == (first, False)
    assert registrar.encode() == stored
    assert renewal_code(registrar, first, wall=wall + 30.0) == "not-due"
    second, changed = registrar.renew(first, wall=last_part(first, RENEW_SHARE))
    assert changed
    assert second.serial == first.serial + 1


def test_what_was_given_is_forgotten_when_it_is_due() -> None:
    registrar = registrar_of()
    for number in range(2, 40):
        registrar.renew(make_identity(number, CLUSTER).certificate, wall=DUE)
    registrar.renew(OLD, wall=OLD.not_after - 1.0)
    assert len(registrar._renewed) == 1


def not_renewed(code: str) -> None:
    """The proof of a refusal."""
    registrar, given = registrar_of(), {}
    match code:
        case "node-removed":
            given["removed"] = (OLD.node,)
        case "certificate-expired":
            given["wall"] = OLD.not_after
        case "name-taken":
            registrar.reserve(OLD.name, signing_key(2).public)
    assert renewal_code(registrar, **given) == code


@pytest.mark.parametrize("code", RENEWABLE)
def test_who_is_not_certified_again(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    not_renewed(code)
    others = {one: check for one, check in RENEWABLE.items() if one != code}
    monkeypatch.setattr("overlay.admission.RENEWABLE", others)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        not_renewed(code)


def test_a_certificate_that_is_not_due_is_not_renewed() -> None:
    assert renewal_code(registrar_of(), wall=DUE - 1.0) == "not-due"


def test_serials_grow_above_those_of_other_authorities() -> None:
    registrar = registrar_of()
    new, _ = registrar.renew(replace(OLD, serial=5000), wall=DUE)
    assert new.serial == 5001
    assert certificate_of(ask(registrar, mint(registrar).id, 3)).serial == 5002


def poisoned(number: int, serial: int) -> Certificate:
    """What somebody makes with the stolen key of another authority."""
    fields = (OLD.cluster, serial, OLD.not_before, OLD.not_after)
    names = ("cluster", "serial", "not_before", "not_after")
    return issue_certificate(
        signing_key(5),
        node=signing_key(number).public,
        static=static_key(number).public,
        name=f"node{number}",
        **dict(zip(names, fields, strict=True)),
    )


@pytest.mark.parametrize("serial", [SERIAL_LEAP + 2, (1 << 64) - 2, (1 << 64) - 1])
def test_a_stolen_key_does_not_use_up_the_serials(serial: int) -> None:
    registrar = registrar_of()
    registrar.heed([poisoned(6, serial)])
    assert renewal_code(registrar, poisoned(6, serial)) == "strange-serial"
    assert certificate_of(ask(registrar, mint(registrar).id, 3)).serial == 2


def test_the_greatest_serial_that_somebody_may_have_counted_to_is_gone_on_behind() -> None:
    registrar = registrar_of()
    registrar.heed([poisoned(6, SERIAL_LEAP + 1)])
    assert certificate_of(ask(registrar, mint(registrar).id, 3)).serial == SERIAL_LEAP + 2


def test_one_of_another_authority_is_renewed_at_once() -> None:
    new, changed = registrar_of().renew(replace(OLD, issuer=bytes(32)), wall=WALL + 1.0)
    assert (new.issuer, changed) == (AUTHORITY.public, True)


# -- granting ----------------------------------------------------------------------------------


WEAK, ANYTHING = NodeId(b"\x01" + bytes(31)), b"\x01" + bytes(63)
"""An identity of low order, and a signature that holds under it for every message."""


def ask_as_nobody(registrar: Registrar) -> Decision:
    static = static_key(1).public
    return registrar.on_join_request(
        JoinRequest(request=77, name="nobody", static=static, signature=ANYTHING),
        token=mint(registrar).id,
        joiner=WEAK,
        items=ITEMS,
        gone=frozenset(),
        wall=WALL,
    )


def test_an_identity_that_everybody_could_sign_for_is_not_certified() -> None:
    assert code_of(ask_as_nobody(registrar_of())) == "bad-signature"


def test_without_the_look_at_its_order_it_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "is_weak", lambda _: False)
    assert certificate_of(ask_as_nobody(registrar_of())).node == WEAK


def test_a_request_with_a_fresh_token_is_granted() -> None:
    registrar = registrar_of()
    decision = ask(registrar, mint(registrar).id)
    assert decision.changed
    grant = decision.answer
    assert isinstance(grant, JoinGrant)
    assert (grant.request, grant.cluster, grant.psk, grant.items) == (
        77,
        CLUSTER.encode(),
        PSK,
        ITEMS,
    )
    certificate = certificate_of(decision)
    assert (certificate.node, certificate.static) == (signing_key(1).public, static_key(1).public)
    assert certificate.name == "node1"
    assert certificate.not_before == WALL - BACKDATED
    assert certificate.not_after == WALL + CERTIFICATE_LIFETIME


def test_serials_grow_and_never_meet_the_founders() -> None:
    registrar = registrar_of()
    serials = [
        certificate_of(ask(registrar, mint(registrar, seed=n).id, n)).serial for n in (1, 2, 3)
    ]
    assert serials == [2, 3, 4]


def test_the_same_node_asking_again_gets_the_same_certificate() -> None:
    registrar = registrar_of()
    token = mint(registrar).id
    first = ask(registrar, token)
    again = ask(registrar, token, wall=WALL + 5000.0)
    assert again.answer == first.answer
    assert not again.changed


def test_the_signature_covers_token_key_and_name() -> None:
    assert join_signed_bytes(b"t" * 16, b"k" * 32, "vm1") == b"t" * 16 + b"k" * 32 + b"vm1"


# -- refusing ----------------------------------------------------------------------------------


def test_another_node_with_a_used_token_is_refused() -> None:
    registrar = registrar_of()
    token = mint(registrar).id
    ask(registrar, token, 1)
    assert code_of(ask(registrar, token, 2)) == "token-used"


def test_a_token_ends_at_its_expiry() -> None:
    registrar = registrar_of()
    token = mint(registrar, ttl=60.0).id
    assert code_of(ask(registrar, token, wall=WALL + 60.0)) == "token-expired"
    assert ask(registrar, token, wall=WALL + 59.0).changed


def test_a_revoked_token_admits_nobody_nor_gives_its_certificate_again() -> None:
    registrar = registrar_of()
    fresh, used = mint(registrar).id, mint(registrar, seed=2).id
    ask(registrar, used, 1)
    for token in (fresh, used):
        registrar.tokens.revoke(token.hex(), WALL)
        for number in (1, 2):
            assert code_of(ask(registrar, token, number)) == "token-revoked"


def test_with_a_locked_key_nobody_new_is_certified_and_the_token_stays_good() -> None:
    registrar = registrar_of()
    used, fresh = mint(registrar).id, mint(registrar, seed=2).id
    first = ask(registrar, used, 1)
    registrar.authority = LockedKey(AUTHORITY.public)
    assert code_of(ask(registrar, fresh, 2)) == "authority-locked"
    assert code_of(ask(registrar, bytes(16), 2)) == "token-unknown", "the token's own fault first"
    assert ask(registrar, used, 1).answer == first.answer, "that is signed already"
    before = registrar.encode()
    with pytest.raises(RefusedError) as caught:
        registrar.renew(certificate_of(first), wall=WALL + CERTIFICATE_LIFETIME - 1.0)
    assert caught.value.code == "authority-locked"
    assert registrar.encode() == before
    registrar.authority = AUTHORITY
    assert certificate_of(ask(registrar, fresh, 2)).serial == certificate_of(first).serial + 1


def test_a_token_nobody_minted_is_refused() -> None:
    assert code_of(ask(registrar_of(), bytes(16))) == "token-unknown"


@pytest.mark.parametrize("change", [{"static": bytes(32)}, {"signature": bytes(64)}])
def test_a_request_that_was_altered_is_refused(change: dict[str, object]) -> None:
    registrar = registrar_of()
    assert code_of(ask(registrar, mint(registrar).id, **change)) == "bad-signature"


def test_a_signature_over_another_token_or_name_is_refused() -> None:
    registrar = registrar_of()
    token, other = mint(registrar).id, mint(registrar, seed=2).id
    for signed in (
        join_signed_bytes(other, static_key(1).public, "node1"),
        join_signed_bytes(token, static_key(1).public, "node2"),
    ):
        signature = signing_key(1).sign("join", signed)
        assert code_of(ask(registrar, token, signature=signature)) == "bad-signature"


@pytest.mark.parametrize("name", ["Upper", "a_b", "-a"])
def test_a_name_that_is_no_name_is_refused_and_the_token_stays_good(name: str) -> None:
    registrar = registrar_of()
    token = mint(registrar).id
    assert code_of(ask(registrar, token, name=name)) == "bad-name"
    assert ask(registrar, token).changed


def test_a_name_of_a_living_node_is_refused() -> None:
    registrar = registrar_of()
    registrar.reserve("founder", signing_key(0).public)
    assert code_of(ask(registrar, mint(registrar).id, 1, "founder")) == "name-taken"
    ask(registrar, mint(registrar, seed=2).id, 1, "vm1")
    assert code_of(ask(registrar, mint(registrar, seed=3).id, 2, "vm1")) == "name-taken"


def test_a_name_is_free_again_when_its_node_has_left() -> None:
    registrar = registrar_of()
    ask(registrar, mint(registrar).id, 1, "vm1")
    decision = ask(registrar, mint(registrar, seed=2).id, 2, "vm1", gone=("vm1",))
    assert certificate_of(decision).node == signing_key(2).public


def test_a_node_may_get_its_own_name_again() -> None:
    registrar = registrar_of()
    ask(registrar, mint(registrar).id, 1, "vm1")
    assert ask(registrar, mint(registrar, seed=2).id, 1, "vm1").changed


def test_a_refused_request_changes_nothing() -> None:
    registrar = registrar_of()
    token = mint(registrar).id
    before = (registrar.encode(), registrar.tokens.encode())
    ask(registrar, token, name="Upper")
    ask(registrar, token, signature=bytes(64))
    ask(registrar, bytes(16))
    assert (registrar.encode(), registrar.tokens.encode()) == before


# -- the book ----------------------------------------------------------------------------------


def test_everything_survives_a_restart() -> None:
    registrar = registrar_of()
    used, fresh = mint(registrar).id, mint(registrar, seed=2).id
    first = ask(registrar, used, 1)
    restarted = registrar_of(registrar.tokens.encode(), registrar.encode())
    assert ask(restarted, used, 1).answer == first.answer
    assert code_of(ask(restarted, used, 2)) == "token-used"
    assert code_of(ask(restarted, fresh, 2, "node1")) == "name-taken"
    assert certificate_of(ask(restarted, fresh, 2)).serial == 3


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), max_size=8))
@settings(max_examples=25)
def test_what_is_encoded_is_decoded(asked: list[tuple[int, int]]) -> None:
    registrar = registrar_of()
    for seed, number in asked:
        ask(registrar, mint(registrar, seed=seed).id, number)
    tokens, names = registrar.tokens.encode(), registrar.encode()
    again = registrar_of(tokens, names)
    assert (again.tokens.encode(), again.encode()) == (tokens, names)


def test_the_holder_of_a_name_is_the_node_it_was_last_certified_for() -> None:
    registrar = registrar_of()
    assert registrar.holder("vm1") is None
    ask(registrar, mint(registrar).id, 1, "vm1")
    assert registrar.holder("vm1") == signing_key(1).public
    ask(registrar, mint(registrar, seed=2).id, 2, "vm1", gone=("vm1",))
    assert registrar.holder("vm1") == signing_key(2).public


@pytest.mark.parametrize("stored", [b"\xc1", msgpack.packb([1, 1, [["name"]]])])
def test_damaged_names_are_refused(stored: bytes) -> None:
    with pytest.raises(WireError):
        registrar_of(names=stored)


class AdmissionMachine(RuleBasedStateMachine):
    """Nodes ask in any order, restarts in between; a name and a token each serve one node."""

    numbers = st.integers(1, 4)

    def __init__(self) -> None:
        super().__init__()
        self.registrar = registrar_of()
        self.tokens = [mint(self.registrar, seed=seed).id for seed in range(4)]
        self.users: dict[bytes, int] = {}
        self.names: dict[str, int] = {}
        self.serials: list[int] = []

    @rule(token=st.integers(0, 3), number=numbers, name=st.sampled_from(["a", "b", "c"]))
    def join(self, token: int, number: int, name: str) -> None:
        chosen = self.tokens[token]
        decision = ask(self.registrar, chosen, number, name)
        if chosen in self.users:
            granted = self.users[chosen] == number
            assert not decision.changed
        else:
            granted = self.names.get(name, number) == number
            assert decision.changed == granted
        assert isinstance(decision.answer, JoinGrant) == granted
        if decision.changed:
            self.users[chosen] = self.names[name] = number
            self.serials.append(certificate_of(decision).serial)

    @rule()
    def restart(self) -> None:
        self.registrar = registrar_of(self.registrar.tokens.encode(), self.registrar.encode())

    @invariant()
    def serials_are_unique(self) -> None:
        assert self.serials == sorted(set(self.serials))


TestAdmissionMachine = AdmissionMachine.TestCase
TestAdmissionMachine.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
