"""Tests of overlay.catalog.trust."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.catalog.trust import (
    Authority,
    ForkError,
    Standing,
    Trust,
    pinned_trust,
    stored_trust,
)
from overlay.drops import DropReason
from overlay.errors import AuthError, StateError, WireError
from overlay.keys import SigningKey
from overlay.wire.authority import Act, Link, digest_of, list_item, sign_link

from .world import AUTHORITY, CLUSTER, WALL, forged, identity

KEYS = [AUTHORITY, *(SigningKey(bytes([number]) * 32) for number in range(1, 5))]
FOUNDED = Trust.founded(CLUSTER)


def link(trust: Trust, act: Act, key: int, *, by: int = 0, **options: object) -> Link:
    """The next link of a list, whether it makes sense or not."""
    return sign_link(
        KEYS[by], CLUSTER, trust.links, act, KEYS[key].public, time=WALL + 5, **options
    )


def followed(trust: Trust, *steps: tuple[Act, int, int]) -> Trust:
    for act, key, by in steps:
        trust = trust.extended(link(trust, act, key, by=by))
    return trust


INSTALLED = followed(FOUNDED, (Act.INSTALL, 1, 0))
ROTATED = followed(INSTALLED, (Act.USE, 1, 0), (Act.REMOVE, 0, 1))


def test_in_the_beginning_the_clusters_own_authority_is_in_use() -> None:
    assert FOUNDED.in_use == CLUSTER.authority
    assert FOUNDED.states() == (Authority(CLUSTER.authority, Standing.IN_USE, CLUSTER.created),)
    assert FOUNDED.trusts(CLUSTER.authority)
    assert not FOUNDED.trusts(KEYS[1].public)
    assert FOUNDED.fingerprint == CLUSTER.authority_fingerprint
    with pytest.raises(StateError):
        FOUNDED.item()


def test_a_rotation_passes_through_every_standing() -> None:
    def standings(trust: Trust) -> list[Standing | None]:
        return [trust.standing(key.public) for key in KEYS[:2]]

    used = followed(INSTALLED, (Act.USE, 1, 0))
    assert standings(FOUNDED) == [Standing.IN_USE, None]
    assert standings(INSTALLED) == [Standing.IN_USE, Standing.TRUSTED]
    assert standings(used) == [Standing.TRUSTED, Standing.IN_USE]
    assert standings(ROTATED) == [Standing.REMOVED, Standing.IN_USE]
    assert [ROTATED.trusts(key.public) for key in KEYS[:2]] == [False, True]
    assert ROTATED.in_use == KEYS[1].public
    assert [one.since for one in ROTATED.states()] == [WALL + 5] * 2


def test_one_may_go_back_to_an_authority_that_was_in_use() -> None:
    back = followed(INSTALLED, (Act.USE, 1, 0), (Act.USE, 0, 0), (Act.REMOVE, 1, 0))
    assert back.in_use == CLUSTER.authority
    assert not back.trusts(KEYS[1].public)


@pytest.mark.parametrize(
    ("trust", "step"),
    [
        (FOUNDED, (Act.INSTALL, 0, 0)),
        (FOUNDED, (Act.USE, 0, 0)),
        (FOUNDED, (Act.USE, 1, 0)),
        (FOUNDED, (Act.REMOVE, 0, 0)),
        (FOUNDED, (Act.REMOVE, 1, 0)),
        (INSTALLED, (Act.INSTALL, 1, 0)),
        (INSTALLED, (Act.REMOVE, 0, 1)),
        (ROTATED, (Act.INSTALL, 0, 1)),
        (ROTATED, (Act.USE, 0, 1)),
        (ROTATED, (Act.REMOVE, 0, 1)),
    ],
)
def test_what_cannot_be_done_is_refused(trust: Trust, step: tuple[Act, int, int]) -> None:
    with pytest.raises(AuthError, match="cannot be done"):
        followed(trust, step)


@pytest.mark.parametrize(
    ("trust", "by"), [(FOUNDED, 1), (FOUNDED, 2), (INSTALLED, 2), (ROTATED, 0)]
)
def test_only_an_authority_that_is_trusted_signs_links(trust: Trust, by: int) -> None:
    with pytest.raises(AuthError, match="not by one of them") as caught:
        followed(trust, (Act.INSTALL, 3, by))
    assert caught.value.reason is DropReason.BAD_CERTIFICATE


def test_an_installed_authority_signs_links_before_it_is_in_use() -> None:
    assert followed(INSTALLED, (Act.INSTALL, 2, 1)).trusts(KEYS[2].public)


@pytest.mark.parametrize(
    "change",
    [
        {"cluster": bytes(8)},
        {"number": 1},
        {"number": 3},
        {"previous": bytes(16)},
        {"previous": FOUNDED.digests[0]},
    ],
)
def test_a_link_of_another_place_is_refused(change: dict[str, object]) -> None:
    unsigned = replace(link(INSTALLED, Act.USE, 1), **change)
    moved = replace(unsigned, signature=AUTHORITY.sign("authority", unsigned.signed_bytes()))
    assert moved.is_signed()
    with pytest.raises(AuthError, match="not the next"):
        INSTALLED.extended(moved)


def test_a_link_whose_signature_does_not_hold_is_refused() -> None:
    forged = replace(link(INSTALLED, Act.USE, 1), time=WALL)
    with pytest.raises(AuthError, match="wrong signature"):
        INSTALLED.extended(forged)


def test_what_a_removed_authority_said_stands_if_its_removal_says_so() -> None:
    used = followed(INSTALLED, (Act.USE, 1, 0))
    removal = link(used, Act.REMOVE, 0, by=1, stands=[digest_of(b"kept")])
    trust = used.extended(removal)
    key = CLUSTER.authority
    assert [used.stands(key, said) for said in (b"kept", b"later")] == [True, True]
    assert [trust.stands(key, said) for said in (b"kept", b"later")] == [True, False]
    assert trust.stands(KEYS[1].public, b"later")
    assert not trust.stands(KEYS[2].public, b"kept"), "of an authority that nobody ever installed"


def test_a_list_that_goes_on_is_taken_and_one_that_does_not_is_not() -> None:
    assert FOUNDED.extend_untrusted(ROTATED.item()) == ROTATED
    assert INSTALLED.extend_untrusted(ROTATED.item()) == ROTATED
    for older in (INSTALLED, ROTATED):
        with pytest.raises(AuthError, match="known already"):
            ROTATED.extend_untrusted(older.item())
    with pytest.raises(WireError):
        ROTATED.extend_untrusted(ROTATED.item()._replace(body=b""))


def test_a_fork_is_told_from_what_proves_nothing() -> None:
    other = followed(INSTALLED, (Act.INSTALL, 2, 0), (Act.USE, 2, 0), (Act.REMOVE, 1, 2))
    with pytest.raises(ForkError, match="parts from ours at link 2") as caught:
        ROTATED.extend_untrusted(other.item())
    assert caught.value.link == other.links[1]
    invented = [*ROTATED.links[:1], link(INSTALLED, Act.INSTALL, 3, by=2)]
    with pytest.raises(AuthError) as refused:
        ROTATED.extend_untrusted(list_item(invented))
    assert not isinstance(refused.value, ForkError)


def test_a_removed_authority_forks_the_list_in_vain() -> None:
    """It signs as if it had not been removed; whoever knows of that goes on as before."""
    before = followed(INSTALLED, (Act.USE, 1, 0))
    fork = followed(before, (Act.INSTALL, 2, 0), (Act.USE, 2, 0), (Act.REMOVE, 1, 0))
    with pytest.raises(ForkError):
        ROTATED.extend_untrusted(fork.item())


def test_stored_items_tell_the_list() -> None:
    assert stored_trust([], CLUSTER) == FOUNDED
    assert stored_trust([ROTATED.item()], CLUSTER) == ROTATED
    assert stored_trust([ROTATED.item()._replace(version=1)], CLUSTER) == FOUNDED


STEPS = st.lists(
    st.tuples(st.sampled_from(Act), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12
)


def grown(trust: Trust, steps: list[tuple[Act, int, int]]) -> list[Trust]:
    """Every state that the possible ones of some steps lead through."""
    states = [trust]
    for step in steps:
        try:
            states.append(followed(states[-1], step))
        except AuthError:
            continue
    return states


@given(STEPS)
def test_what_is_removed_never_comes_back_and_signs_nothing(
    steps: list[tuple[Act, int, int]],
) -> None:
    removed: set[bytes] = set()
    for trust in grown(FOUNDED, steps):
        assert not any(map(trust.trusts, removed))
        assert trust.trusts(trust.in_use)
        if trust.links:
            assert trust.links[-1].signer not in removed
        removed |= {one.key for one in trust.states() if one.standing is Standing.REMOVED}
        in_use = [one.key for one in trust.states() if one.standing is Standing.IN_USE]
        assert in_use == [trust.in_use]


@given(STEPS, st.randoms())
def test_the_order_in_which_continuations_come_is_of_no_account(
    steps: list[tuple[Act, int, int]], rng: random.Random
) -> None:
    states = grown(FOUNDED, steps)[1:]
    arriving = states * 2
    rng.shuffle(arriving)
    held = FOUNDED
    for state in arriving:
        if len(state.links) > len(held.links):
            held = held.extend_untrusted(state.item())
        else:
            with pytest.raises(AuthError):
                held.extend_untrusted(state.item())
    assert not states or held == states[-1]


@given(STEPS, STEPS)
def test_a_list_is_only_ever_extended(
    steps: list[tuple[Act, int, int]], others: list[tuple[Act, int, int]]
) -> None:
    held, other = grown(FOUNDED, steps)[-1], grown(FOUNDED, others)[-1]
    if not other.links:
        return
    continues = len(other.links) > len(held.links) and other.links[: len(held.links)] == held.links
    if continues:
        assert held.extend_untrusted(other.item()) == other
        return
    with pytest.raises(AuthError) as refused:
        held.extend_untrusted(other.item())
    known = other.links == held.links[: len(other.links)]
    assert isinstance(refused.value, ForkError) == (not known)


# -- pins and certificates ---------------------------------------------------------------------


def test_a_list_that_continues_the_pinned_one_is_taken() -> None:
    assert pinned_trust([], CLUSTER, CLUSTER.authority_fingerprint) == FOUNDED
    items = [ROTATED.item()]
    for pinned in (FOUNDED, INSTALLED, ROTATED):
        assert pinned_trust(items, CLUSTER, pinned.fingerprint) == ROTATED
    with pytest.raises(AuthError, match="not those that were pinned"):
        pinned_trust([INSTALLED.item()], CLUSTER, ROTATED.fingerprint)
    with pytest.raises(AuthError, match="not those that were pinned"):
        pinned_trust([], CLUSTER, bytes(16))


def test_a_fork_of_the_pinned_list_is_not_taken() -> None:
    used = followed(INSTALLED, (Act.USE, 1, 0))
    fork = followed(used, (Act.INSTALL, 2, 0), (Act.USE, 2, 0))
    with pytest.raises(AuthError, match="not those that were pinned"):
        pinned_trust([fork.item()], CLUSTER, ROTATED.fingerprint)
    assert pinned_trust([fork.item()], CLUSTER, used.fingerprint) == fork


def test_a_certificate_is_worth_what_its_authority_is() -> None:
    certificate = identity("alice").certificate
    INSTALLED.check_certificate(certificate, WALL)
    with pytest.raises(AuthError, match="not trusted"):
        ROTATED.check_certificate(certificate, WALL)
    with pytest.raises(AuthError, match="not signed by its issuer"):
        INSTALLED.check_certificate(forged("alice").certificate, WALL)
    with pytest.raises(AuthError, match="expired"):
        INSTALLED.check_certificate(certificate, certificate.not_after)
