"""Tests of overlay.signers."""

from __future__ import annotations

from overlay.catalog.trust import Trust
from overlay.keys import SigningKey
from overlay.signers import Signers
from overlay.wire.authority import Act, sign_link
from tests.support.clusters import AUTHORITY, WALL, make_cluster

CLUSTER = make_cluster()
SECOND, THIRD = (SigningKey(bytes([number]) * 32) for number in (2, 3))


def changed(*steps: tuple[SigningKey, Act, SigningKey]) -> Trust:
    trust = Trust.founded(CLUSTER)
    for signer, act, key in steps:
        link = sign_link(signer, CLUSTER, trust.links, act, key.public, time=WALL)
        trust = trust.extended(link)
    return trust


INSTALLED = changed((AUTHORITY, Act.INSTALL, SECOND))
USED = changed((AUTHORITY, Act.INSTALL, SECOND), (AUTHORITY, Act.USE, SECOND))


def test_the_key_of_the_authority_in_use_signs_if_it_is_here() -> None:
    state = [INSTALLED]
    signers = Signers([AUTHORITY], lambda: state[0])
    assert signers.in_use is AUTHORITY
    state[0] = USED
    assert signers.in_use is None
    signers.add(SECOND)
    assert signers.in_use is SECOND
    assert [signers.holds(key.public) for key in (AUTHORITY, SECOND, THIRD)] == [True, True, False]


def test_without_keys_nothing_is_signed() -> None:
    signers = Signers([], lambda: INSTALLED)
    assert (signers.any, signers.in_use, signers.for_link(bytes(32))) == (None, None, None)


def test_a_link_is_signed_with_the_key_in_use_or_another_that_is_trusted() -> None:
    assert Signers([SECOND, AUTHORITY], lambda: INSTALLED).for_link(bytes(32)) is AUTHORITY
    assert Signers([THIRD, SECOND], lambda: INSTALLED).for_link(bytes(32)) is SECOND
    assert Signers([THIRD], lambda: INSTALLED).for_link(bytes(32)) is None
    assert Signers([AUTHORITY, SECOND], lambda: USED).for_link(SECOND.public) is AUTHORITY
    assert Signers([SECOND], lambda: USED).for_link(SECOND.public) is SECOND
