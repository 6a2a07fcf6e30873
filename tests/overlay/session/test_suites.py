"""Both ciphers against Wycheproof, the choice between them, and keys that never meet."""

from __future__ import annotations

import json
from collections import Counter
from hashlib import blake2s

import pytest
from cryptography.exceptions import InvalidTag

from overlay.session.suites import (
    Suite,
    choose_suite,
    lane_key,
    make_aead,
    offered_suites,
    suite_name,
    transport_key,
)

AEADS = [
    ("wycheproof_aes_gcm.json", Suite.AES_256_GCM, {"valid": 39, "invalid": 27}),
    ("wycheproof_chacha20_poly1305.json", Suite.CHACHA20_POLY1305, {"valid": 256, "invalid": 60}),
]
"""Cases with keys of 256 bits, nonces of 96 and tags of 128: no others are ever used here."""


def cases_of(vectors, file, iv_size=96):
    groups = json.loads((vectors / file).read_text())["testGroups"]
    return [
        case
        for group in groups
        if (group["keySize"], group["ivSize"], group["tagSize"]) == (256, iv_size, 128)
        for case in group["tests"]
    ]


def unhex(case):
    return [bytes.fromhex(case[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")]


@pytest.mark.parametrize(("file", "suite", "results"), AEADS, ids=lambda value: str(value))
def test_published_vectors_seal_and_open_as_they_should(vectors, file, suite, results):
    fitting = cases_of(vectors, file)
    assert Counter(case["result"] for case in fitting) == results
    for case in fitting:
        key, nonce, aad, plain, cipher, tag = unhex(case)
        aead = make_aead(suite, key)
        out = bytearray(len(plain))
        if case["result"] == "valid":
            assert aead.decrypt_into(nonce, cipher + tag, aad, out) == len(plain)
            assert out == plain
            sealed = bytearray(len(plain) + 16)
            assert aead.encrypt_into(nonce, plain, aad, sealed) == len(sealed)
            assert sealed == cipher + tag
        else:
            with pytest.raises(InvalidTag):
                aead.decrypt_into(nonce, cipher + tag, aad, bytearray(len(cipher)))


def test_nonces_of_other_sizes_are_no_nonces_for_chacha(vectors):
    """AES-GCM has longer ones by its definition; what is used here are twelve bytes, always."""
    sizes = (0, 64, 88, 104, 112, 128, 160, 192, 256)
    cases = [c for size in sizes for c in cases_of(vectors, AEADS[1][0], size)]
    assert len(cases) == len(sizes)
    for case in cases:
        key, nonce, aad, _, cipher, tag = unhex(case)
        aead = make_aead(Suite.CHACHA20_POLY1305, key)
        with pytest.raises((ValueError, InvalidTag)):
            aead.decrypt_into(nonce, cipher + tag, aad, bytearray(len(cipher)))


def test_transport_keys_differ_by_suite_and_match_their_formula():
    aes = transport_key(b"k" * 32, Suite.AES_256_GCM)
    chacha = transport_key(b"k" * 32, Suite.CHACHA20_POLY1305)
    assert aes != chacha
    assert aes == blake2s(b"muslin transport AES-256-GCM", key=b"k" * 32).digest()
    assert chacha == blake2s(b"muslin transport ChaCha20-Poly1305", key=b"k" * 32).digest()


def test_numbers_and_names_of_suites_stay():
    assert {suite.value: suite_name(suite) for suite in Suite} == {
        1: "AES-256-GCM",
        2: "ChaCha20-Poly1305",
    }


@pytest.mark.parametrize(
    ("offered", "prefer_aes", "chosen"),
    [
        ((1, 2), True, Suite.AES_256_GCM),
        ((2, 1), True, Suite.AES_256_GCM),
        ((1, 2), False, Suite.CHACHA20_POLY1305),
        ((2,), True, Suite.CHACHA20_POLY1305),
        ((7, 2, 9), True, Suite.CHACHA20_POLY1305),
        ((1,), False, None),
        ((7,), True, None),
        ((), True, None),
    ],
)
def test_aes_is_chosen_only_if_both_ends_want_it(offered, prefer_aes, chosen):
    assert choose_suite(offered, prefer_aes=prefer_aes) == chosen


@pytest.mark.parametrize("prefer_aes", [True, False])
def test_what_is_offered_can_always_be_chosen(prefer_aes):
    offered = offered_suites(prefer_aes=prefer_aes)
    assert choose_suite(offered, prefer_aes=True) is not None
    assert choose_suite(offered, prefer_aes=False) is not None


def test_keys_of_lanes_differ_by_pair_and_direction_and_match_their_formula():
    pairs = [(sender, receiver) for sender in range(16) for receiver in range(16)]
    keys = {lane_key(b"k" * 32, *pair) for pair in pairs}
    assert len(keys) == len(pairs)
    assert lane_key(b"k" * 32, 1, 2) == blake2s(b"muslin lane\1\2", key=b"k" * 32).digest()
    # None of them is a transport key of the session itself.
    assert not keys & {b"k" * 32, *(transport_key(b"k" * 32, suite) for suite in Suite)}
