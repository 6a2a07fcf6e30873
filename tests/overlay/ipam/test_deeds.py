"""Tests of overlay.ipam.deeds."""

from __future__ import annotations

import struct
from dataclasses import replace
from hashlib import blake2s

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.config import Limits
from overlay.errors import AuthError, StateError, WireError
from overlay.ipam import deeds
from overlay.ipam.deeds import (
    Chain,
    ChainReader,
    decode_chain_untrusted,
    sign_deed,
    verify_chain,
)
from overlay.types import BlockIndex
from overlay.wire.items import BODY_LIMIT
from tests.support.clusters import AUTHORITY

from .titled import CLUSTER, NODES, altered, base_of, chain_of

READER = ChainReader(CLUSTER)


def complement(data: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in blake2s(data, digest_size=16).digest())


# -- bytes -------------------------------------------------------------------------------------


def test_a_deed_has_the_documented_bytes_and_signature() -> None:
    chain = sign_deed(NODES[0], chain_of(), NODES[1].public, cluster=CLUSTER.id, request=77)
    (deed,) = chain.deeds
    signed = b"\x97\x02\xc4\x08" + CLUSTER.id + b"\x02\x01\x4d"
    signed += b"\xc4\x20" + NODES[0].public + b"\xc4\x20" + NODES[1].public
    assert deed.signature == NODES[0].sign("deed", signed)
    hashed = struct.pack(">IQQ", 2, 1, 77) + NODES[0].public + NODES[1].public + deed.signature
    assert chain.encode() == (
        b"\x02\x00\x00\x00\x02"
        + bytes(8)
        + complement(hashed)
        + struct.pack(">Q", 77)
        + NODES[1].public
        + deed.signature
    )


def test_a_base_has_the_documented_bytes_and_signature() -> None:
    chain = base_of(7, owner=3)
    assert chain.base is not None
    signer, owner = AUTHORITY.public, NODES[3].public
    place = b"\x96\x02\xc4\x08" + CLUSTER.id + b"\x02\x07"
    signed = place + b"\xc4\x20" + signer + b"\xc4\x20" + owner
    assert chain.base.signature == AUTHORITY.sign("base", signed)
    hashed = struct.pack(">IQQ", 2, 7, 0) + signer + owner + chain.base.signature
    head = b"\x02\x00\x00\x00\x02" + struct.pack(">Q", 7)
    assert chain.encode() == head + complement(hashed) + signer + owner + chain.base.signature


@pytest.mark.parametrize(
    "chain",
    [chain_of(1), chain_of(1, 2, 3, 0, 1), base_of(9), chain_of(1, 0, base=base_of(5, owner=2))],
)
def test_decoding_gives_back_what_was_encoded(chain: Chain) -> None:
    decoded = decode_chain_untrusted(chain.encode(), CLUSTER)
    assert decoded == chain
    verify_chain(decoded, READER)


def test_sequences_go_on_behind_a_base() -> None:
    chain = chain_of(1, 3, base=base_of(5, owner=2))
    assert [deed.sequence for deed in chain.deeds] == [6, 7]
    assert [deed.giver for deed in chain.deeds] == [NODES[2].public, NODES[1].public]
    assert (chain.base_sequence, chain.sequence, chain.owner) == (5, 7, NODES[3].public)


def test_a_base_is_read_alone_from_a_chain_that_was_read_before() -> None:
    chain = chain_of(1, 3, base=base_of(5, owner=2))
    assert deeds.base_of(chain.encode()) == chain.base
    assert deeds.base_of(chain_of(1).encode()) is None


GOOD = chain_of(1, 2, base=base_of(5)).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD[:12],
        b"\x01" + GOOD[1:],
        GOOD[:100],
        GOOD[:-1],
        GOOD + b"x",
        GOOD[:13] + b"\x00" + GOOD[14:],
        chain_of(1).encode()[:13] + b"\x00" * 16 + chain_of(1).encode()[29:],
        b"\x02" + bytes(12),
        bytes(BODY_LIMIT + 1),
        chain_of(1).encode()[:5] + b"\xff" * 8 + GOOD[13:],
    ],
    ids=[
        "empty",
        "short head",
        "format",
        "short base",
        "short deed",
        "too long",
        "rank of the base",
        "rank of a deed",
        "nothing in it",
        "too large",
        "sequence",
    ],
)
def test_what_is_no_chain_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_chain_untrusted(data, CLUSTER)


def test_a_deed_to_its_own_giver_is_refused() -> None:
    chain = altered(chain_of(1), 0, taker=NODES[0].public)
    with pytest.raises(WireError, match="the same"):
        decode_chain_untrusted(chain.encode(), CLUSTER)


def test_the_longest_chain_fits_a_gossip_item() -> None:
    chain = chain_of(1, base=base_of(1))
    deeds = chain.deeds * Limits().deed_chain
    assert len(replace(chain, deeds=deeds).encode()) <= BODY_LIMIT


@given(st.binary(max_size=300))
def test_random_bytes_raise_wire_error_only(data: bytes) -> None:
    with pytest.raises(WireError):
        verify_chain(decode_chain_untrusted(b"\x02" + data, CLUSTER), READER)


# -- validity ----------------------------------------------------------------------------------


def test_only_the_owner_signs_a_block_away_and_not_to_itself() -> None:
    for key, taker in ((NODES[0], 2), (NODES[1], 1)):
        with pytest.raises(StateError):
            sign_deed(key, chain_of(1), NODES[taker].public, cluster=CLUSTER.id)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(
    "change", [{"signature": bytes(64)}, {"taker": NODES[0].public}, {"request": 1}]
)
@pytest.mark.parametrize("base", [None, base_of(3)], ids=["genesis", "base"])
def test_a_chain_with_any_altered_deed_is_refused(
    place: int, change: dict[str, object], base: Chain | None
) -> None:
    with pytest.raises((AuthError, WireError)):
        verify_chain(altered(chain_of(1, 2, 3, base=base), place, **change), READER)


@pytest.mark.parametrize(
    "chain",
    [
        chain_of(1, block=4),
        Chain(BlockIndex(1 << 40), CLUSTER.genesis),
        replace(chain_of(1, 2), deeds=chain_of(1, 2).deeds[1:]),
        replace(chain_of(1), deeds=(*chain_of(1).deeds, chain_of(1, 2, block=3).deeds[1])),
        replace(chain_of(1), deeds=chain_of(1).deeds * 2),
        replace(chain_of(1), root=NODES[2].public),
        replace(base_of(3), root=NODES[2].public),
        replace(base_of(3), block=BlockIndex(1)),
        chain_of(1, base=base_of(3)) and replace(chain_of(1), base=base_of(3).base),
    ],
    ids=[
        "no such block",
        "far too high",
        "cut in front",
        "another block",
        "same deed twice",
        "not from genesis",
        "not from the base's owner",
        "a base of another block",
        "sequence before the base",
    ],
)
def test_chains_that_do_not_hang_together_are_refused(chain: Chain) -> None:
    with pytest.raises(WireError):
        verify_chain(chain, READER)


def test_deeds_of_another_cluster_prove_nothing_here() -> None:
    with pytest.raises(AuthError):
        verify_chain(chain_of(1, cluster=bytes(8)), READER)


def test_a_base_is_signed_by_whom_it_names() -> None:
    forged = base_of(9)
    assert forged.base is not None
    message = forged.base.signed_bytes(CLUSTER.id)
    base = replace(forged.base, signature=NODES[0].sign("base", message))
    with pytest.raises(AuthError, match="not its signer's"):
        verify_chain(replace(forged, base=base), READER)


def test_a_base_that_was_checked_before_is_not_a_pass_for_another_one() -> None:
    known = chain_of(1, base=base_of(3))
    other = base_of(4)
    assert other.base is not None
    other = replace(other, base=replace(other.base, signature=bytes(64)))
    with pytest.raises(AuthError):
        verify_chain(other, READER, known)


def test_a_former_owner_cannot_sign_in_the_present_owners_place() -> None:
    stolen = chain_of(1, 2, 3)
    by_former = NODES[1].sign("deed", stolen.deeds[2].signed_bytes(CLUSTER.id))
    with pytest.raises(AuthError):
        verify_chain(altered(stolen, 2, signature=by_former), READER)
