"""Claims: their bytes, their order, and who can make an incarnation grow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import WireError
from overlay.keys import SigningKey
from overlay.wire.claims import Claim, ClaimState, claim_untrusted, is_proven, prove_alive
from overlay.wire.packing import U32, pack, unpack_untrusted

KEY = SigningKey(bytes(32))
CLUSTER = b"clusterA"
PLAIN = [KEY.public, 3, 0, 1, True, b""]


def proven(incarnation: int, boot: int = 3) -> Claim:
    proof = prove_alive(KEY, CLUSTER, boot, incarnation)
    return Claim(KEY.public, boot, incarnation, ClaimState.ALIVE, True, proof)


@given(st.integers(0, U32), st.sampled_from(ClaimState), st.booleans())
def test_claims_survive_packing(boot: int, state: ClaimState, own: bool) -> None:
    for incarnation, proof in ((0, b""), (U32, bytes(64))):
        claim = Claim(KEY.public, boot, incarnation, state, own, proof)
        assert claim_untrusted(unpack_untrusted(pack(claim), 200)) == claim


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, bytes(31)),
        (1, U32 + 1),
        (2, 1),  # without a proof
        (3, 3),
        (4, 1),
        (5, bytes(64)),  # of nothing
        (5, bytes(65)),
    ],
)
def test_what_is_no_claim_is_refused(place: int, value: object) -> None:
    values = list(PLAIN)
    claim_untrusted(values)
    values[place] = value
    with pytest.raises(WireError):
        claim_untrusted(values)


def test_the_first_incarnation_needs_no_proof_and_any_other_the_nodes_own() -> None:
    assert is_proven(claim_untrusted(PLAIN), CLUSTER)
    assert is_proven(proven(7), CLUSTER)
    other = SigningKey(b"\1" * 32)
    assert not is_proven(proven(7)._replace(node=other.public), CLUSTER)
    assert not is_proven(proven(7)._replace(incarnation=8), CLUSTER)
    assert not is_proven(proven(7)._replace(boot=4), CLUSTER)
    assert not is_proven(proven(7), b"clusterB")


def test_a_proof_holds_for_any_state_because_only_the_incarnation_is_proven() -> None:
    assert is_proven(proven(7)._replace(state=ClaimState.DEAD), CLUSTER)


def test_a_later_boot_beats_an_incarnation_and_that_beats_a_state() -> None:
    dead = proven(7)._replace(state=ClaimState.DEAD)
    assert proven(1, boot=4).rank > proven(8).rank > dead.rank > proven(7).rank
