"""Both key pairs: vectors, contexts, and secrets that stay out of texts."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay import keys
from overlay.errors import AuthError, RefusedError
from overlay.keys import KEY_SIZE, SIGNATURE_SIZE, LockedKey, SigningKey, StaticKey, is_weak, verify
from tests.support import lenient
from tests.support.reencode import malleated

SEED = bytes(range(32))


def test_x25519_vectors_give_the_published_secret_or_are_refused(vectors):
    """Wycheproof marks a zero secret `acceptable`; RFC 7748 lets us refuse it, and we do."""
    groups = json.loads((vectors / "wycheproof_x25519.json").read_text())["testGroups"]
    cases = [case for group in groups for case in group["tests"]]
    zero = [case for case in cases if not any(bytes.fromhex(case["shared"]))]
    assert Counter(case["result"] for case in cases) == {"valid": 264, "acceptable": 254}
    assert {len(zero), *(case["result"] for case in zero)} == {31, "acceptable"}
    for case in cases:
        key = StaticKey(bytes.fromhex(case["private"]))
        public, shared = bytes.fromhex(case["public"]), bytes.fromhex(case["shared"])
        if not any(shared):
            with pytest.raises(AuthError):
                key.exchange(public)
        else:
            assert key.exchange(public) == shared, case["tcId"]


def test_ed25519_vectors_hold_for_verify(vectors, monkeypatch):
    """`verify` binds a context into the message, so no published signature fits it as it is.

    Here it binds nothing, and is `verify` otherwise; that the binding is right is another test.
    """
    monkeypatch.setattr(keys, "_bound", lambda _context, message: message)
    groups = json.loads((vectors / "wycheproof_ed25519.json").read_text())["testGroups"]
    cases = [(group, case) for group in groups for case in group["tests"]]
    assert Counter(case["result"] for _, case in cases) == {"valid": 88, "invalid": 63}
    for group, case in cases:
        public = bytes.fromhex(group["publicKey"]["pk"])
        message, signature = bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"])
        valid = case["result"] == "valid"
        assert verify(public, "", message, signature) is valid, case["tcId"]


def test_a_signature_covers_the_documented_bytes():
    key = SigningKey(SEED)
    signature = key.sign("deed", b"message")
    Ed25519PublicKey.from_public_bytes(key.public).verify(signature, b"muslin deed\0message")
    assert len(signature) == SIGNATURE_SIZE
    assert len(key.public) == KEY_SIZE


@given(message=st.binary(max_size=100), context=st.sampled_from(["deed", "record", "join"]))
@settings(max_examples=25)
def test_a_signature_holds_for_its_context_message_and_key_only(message, context):
    key, other = SigningKey(SEED), SigningKey(SEED[::-1])
    signature = key.sign(context, message)
    assert verify(key.public, context, message, signature)
    assert not verify(key.public, context + "x", message, signature)
    assert not verify(key.public, context, message + b"x", signature)
    assert not verify(other.public, context, message, signature)
    assert not verify(key.public, context, message, signature[:-1] + b"\xff")


@given(message=st.binary(max_size=40))
@settings(max_examples=25)
def test_nobody_can_make_another_signature_of_one_without_the_key(message):
    """RFC 8032, section 5.1.7: S is below the order. Else every signed thing had other forms."""
    key = SigningKey(SEED)
    signature = key.sign("deed", message)
    others = list(malleated(signature))
    assert len(others) >= 14
    assert [other for other in others if verify(key.public, "deed", message, other)] == []


def test_without_the_bound_on_s_they_would_be_signatures():
    key = SigningKey(SEED)
    others = list(malleated(key.sign("deed", b"message")))
    assert all(lenient.verifies(key.public, b"muslin deed\0message", other) for other in others)
    assert not lenient.verifies(key.public, b"muslin deed\0other", others[0])


def test_text_cannot_move_between_context_and_message():
    key = SigningKey(SEED)
    assert not verify(key.public, "a", b"b", key.sign("ab", b""))
    assert not verify(key.public, "ab", b"", key.sign("a", b"b"))


@pytest.mark.parametrize(
    ("public", "signature"), [(b"", b""), (bytes(31), bytes(64)), (bytes(33), bytes(64))]
)
def test_verify_answers_no_to_things_that_are_no_keys(public, signature):
    assert not verify(public, "deed", b"", signature)
    assert not verify(SigningKey(SEED).public, "deed", b"", signature[:63])


IDENTITY_POINT = b"\x01" + bytes(31)


@pytest.mark.parametrize("public", sorted(keys._WEAK))
def test_nothing_is_signed_by_a_key_of_low_order(public, monkeypatch):
    """Cofactors 1, 2, 4 and 8: of eight messages one at least finds a signature without a key."""
    monkeypatch.setattr(keys, "is_weak", lambda _: False)
    forged = [
        message
        for message in (bytes([number]) for number in range(64))
        if verify(public, "record", message, IDENTITY_POINT + bytes(32))
    ]
    monkeypatch.undo()
    assert forged
    assert is_weak(public)
    assert not any(
        verify(public, "record", message, IDENTITY_POINT + bytes(32)) for message in forged
    )


def test_the_points_of_low_order_are_those_whose_eightfold_is_nothing():
    """Computed from the curve (RFC 8032, section 5.1), not from a list."""
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p

    def xs(y: int) -> list[int]:
        square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        root = pow(square, (p + 3) // 8, p)
        if root * root % p != square:
            root = root * pow(2, (p - 1) // 4, p) % p
        return [root, -root % p] if root * root % p == square else []

    def twice(x: int, y: int) -> tuple[int, int]:
        t = d * x * x * y * y % p
        return 2 * x * y * pow(1 + t, -1, p) % p, (y * y + x * x) * pow(1 - t, -1, p) % p

    weak = [int.from_bytes(public, "little") % 2**255 for public in keys._WEAK]
    for y in weak:
        points = [(x, y % p) for x in xs(y % p)]
        assert points, "not on the curve"
        for point in points:
            assert twice(*twice(*twice(*point))) == (0, 1)
    assert len({(x, y % p) for y in weak for x in xs(y % p)}) == 8, "all of them"


def test_both_ends_of_an_exchange_get_the_same_secret():
    one, two = StaticKey(SEED), StaticKey(SEED[::-1])
    assert one.exchange(two.public) == two.exchange(one.public)
    assert one.exchange(two.public) != one.exchange(one.public)


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33), bytes(32), b"\x01" + bytes(31)])
def test_a_public_key_of_low_order_or_wrong_size_is_refused(public):
    with pytest.raises(AuthError):
        StaticKey(SEED).exchange(public)


def test_the_same_seed_makes_the_same_keys_and_no_text_shows_it():
    for kind in (SigningKey, StaticKey):
        assert kind(SEED).public == kind(SEED).public
        assert SEED.hex() not in repr(kind(SEED))
        assert repr(SEED)[2:-1] not in repr(kind(SEED))


def test_a_locked_key_is_known_but_signs_nothing() -> None:
    key = SigningKey(bytes(32))
    locked = LockedKey(key.public)
    assert (key.is_locked, locked.is_locked) == (False, True)
    assert locked.public == key.public
    with pytest.raises(RefusedError) as caught:
        locked.sign("record", b"x")
    assert caught.value.code == "authority-locked"
