"""Keypairs: sealing, opening, counters, and the ends of their life."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.drops import DropReason
from overlay.errors import AuthError, CapacityError
from overlay.session.replay import REJECT_COUNTER
from overlay.session.suites import Suite, transport_key
from overlay.session.transport import REKEY_COUNTER, Keypair

KEYS = (b"\x11" * 32, b"\x22" * 32)
SUITES = list(Suite)


def ends(suite: Suite = Suite.AES_256_GCM) -> tuple[Keypair, Keypair]:
    initiator, responder = (
        Keypair(
            split,
            suite=suite,
            local_index=index,
            remote_index=3 - index,
            initiator=index == 1,
            created_at=100.0,
            expires_at=280.0,
        )
        for split, index in ((KEYS, 1), (KEYS[::-1], 2))
    )
    return initiator, responder


def seal(keypair: Keypair, counter: int, plaintext: bytes, aad: bytes = b"header") -> bytes:
    out = bytearray(len(plaintext) + 16)
    assert keypair.seal_into(counter, plaintext, aad, out) == len(out)
    return bytes(out)


@pytest.mark.parametrize("suite", SUITES)
@given(plaintext=st.binary(max_size=2000), counter=st.integers(0, 2**64 - 1))
@settings(max_examples=30)
def test_what_one_end_seals_the_other_opens_in_both_directions(suite, plaintext, counter):
    for sender, receiver in (ends(suite), ends(suite)[::-1]):
        ciphertext = seal(sender, counter, plaintext)
        out = bytearray(len(plaintext))
        assert receiver.open_into(counter, ciphertext, b"header", out) == len(plaintext)
        assert out == plaintext


def test_a_sealed_burst_is_the_library_s_under_the_documented_nonce_and_key():
    key = transport_key(KEYS[0], Suite.AES_256_GCM)
    expected = AESGCM(key).encrypt(bytes(4) + (258).to_bytes(8, "big"), b"burst", b"header")
    assert seal(ends()[0], 258, b"burst") == expected


@pytest.mark.parametrize("suite", SUITES)
def test_sealing_and_opening_work_in_place(suite):
    sender, receiver = ends(suite)
    buffer = bytearray(b"0123456789" + bytes(16))
    view = memoryview(buffer)
    sender.seal_into(7, view[:10], b"aad", view)
    assert receiver.open_into(7, view, b"aad", view[:10]) == 10
    assert buffer[:10] == b"0123456789"


@pytest.mark.parametrize("suite", SUITES)
def test_any_change_is_a_bad_tag(suite):
    sender, receiver = ends(suite)
    ciphertext = seal(sender, 5, b"burst")
    damaged = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    for counter, data, aad in (
        (6, ciphertext, b"header"),
        (5, damaged, b"header"),
        (5, ciphertext, b"Header"),
    ):
        with pytest.raises(AuthError) as refusal:
            receiver.open_into(counter, data, aad, bytearray(5))
        assert refusal.value.reason is DropReason.BAD_TAG
    with pytest.raises(AuthError):
        receiver.open_into(5, ciphertext[:9], b"header", bytearray(0))
    with pytest.raises(AuthError):
        sender.open_into(5, ciphertext, b"header", bytearray(5))


def test_opening_leaves_the_replay_window_to_its_caller():
    sender, receiver = ends()
    receiver.open_into(5, seal(sender, 5, b"burst"), b"header", bytearray(5))
    assert receiver.replay.check(5)


def test_counters_are_given_out_once_and_end_at_the_rejection_limit():
    keypair, _ = ends()
    assert [keypair.next_counter() for _ in range(3)] == [0, 1, 2]
    keypair.counter = REJECT_COUNTER - 1
    assert keypair.usable(100.0)
    assert keypair.next_counter() == REJECT_COUNTER - 1
    assert not keypair.usable(100.0)
    with pytest.raises(CapacityError) as refusal:
        keypair.next_counter()
    assert refusal.value.limit == "counter"


def test_a_keypair_wears_out_in_either_direction_and_for_the_initiator_first():
    initiator, responder = ends()
    assert not initiator.worn
    initiator.counter = responder.counter = REKEY_COUNTER - 1
    assert not initiator.worn
    initiator.counter = responder.counter = REKEY_COUNTER
    assert initiator.worn
    assert not responder.worn
    responder.counter = REKEY_COUNTER * 5 // 4
    assert responder.worn
    receiving, _ = ends()
    receiving.replay.accept(REKEY_COUNTER)
    assert receiving.worn
    assert receiving.usable(100.0)


def test_a_keypair_is_not_usable_once_it_expired():
    keypair, _ = ends()
    assert keypair.usable(279.9)
    assert not keypair.usable(280.0)


def test_only_the_initiator_s_end_starts_confirmed():
    initiator, responder = ends()
    assert initiator.confirmed
    assert not responder.confirmed


def test_representation_shows_no_keys():
    keypair, _ = ends()
    assert "11" * 4 not in repr(keypair)
    assert r"\x11" not in repr(keypair)
    assert not hasattr(keypair, "__dict__")


@pytest.mark.parametrize("suite", SUITES)
def test_keypairs_of_two_lanes_open_what_the_other_seals_and_nothing_else(suite):
    a, b = ends(suite)
    here, there = a.for_lanes(2, 5), b.for_lanes(5, 2)
    assert (here.lane, there.lane) == (0x25, 0x52)
    assert (here.counter, here.replay.highest, here.local_index) == (0, -1, a.local_index)
    assert here.confirmed
    assert there.confirmed
    sealed = seal(here, here.next_counter(), b"from 2 to 5")
    assert opened(there, 0, sealed) == b"from 2 to 5"
    for other in (b, b.for_lanes(2, 5), b.for_lanes(5, 1), b.for_lanes(4, 2), here):
        with pytest.raises(AuthError):
            opened(other, 0, sealed)
    assert a.counter == 0


def opened(keypair: Keypair, counter: int, sealed: bytes, aad: bytes = b"header") -> bytes:
    out = bytearray(len(sealed) - 16)
    keypair.open_into(counter, sealed, aad, out)
    return bytes(out)
