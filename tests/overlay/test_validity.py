"""Tests of overlay.validity."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.validity import (
    BACKDATED,
    LONGEST_DAYS,
    MEMBERS_WARN_SHARE,
    OVERDUE_SHARE,
    RENEW_SHARE,
    is_due,
    last_part,
    life,
    validity,
)
from overlay.wire.packing import MAX_TIME
from tests.support.clusters import AUTHORITY, WALL, YEAR, make_identity

CERTIFICATE = make_identity(1).certificate
ISSUER = AUTHORITY.public


@given(st.floats(WALL, WALL + YEAR), st.integers(1, LONGEST_DAYS * 86_400))
def test_a_new_certificate_is_valid_now_and_not_due(wall: float, lifetime: int) -> None:
    not_before, not_after = validity(wall, lifetime)
    assert not_before <= wall < not_after
    assert int(wall) - not_before <= BACKDATED
    assert not_after - int(wall) == lifetime
    # A backdated hour must not make what lives for a minute due at once.
    assert not_after - (not_after - not_before) / RENEW_SHARE >= int(wall)


def test_no_certificate_ends_after_the_last_time_there_is() -> None:
    assert validity(MAX_TIME - 5, 100)[1] == MAX_TIME


def test_it_is_due_when_less_than_a_third_of_its_life_is_left() -> None:
    assert life(CERTIFICATE) == YEAR
    due = last_part(CERTIFICATE, RENEW_SHARE)
    assert due == WALL + YEAR * 2 / 3
    assert not is_due(CERTIFICATE, ISSUER, due - 1)
    assert is_due(CERTIFICATE, ISSUER, due)


def test_it_is_due_when_another_authority_signs_now() -> None:
    assert is_due(CERTIFICATE, bytes(32), WALL + 1.0)


@pytest.mark.parametrize("share", [OVERDUE_SHARE, MEMBERS_WARN_SHARE])
def test_nobody_is_warned_before_it_is_due(share: int) -> None:
    assert last_part(CERTIFICATE, share) > last_part(CERTIFICATE, RENEW_SHARE)
