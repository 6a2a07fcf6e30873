"""Each rule about time, alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overlay.config import Timing
from overlay.session.timing import (
    RETRY_JITTER,
    expires_at,
    fallback_rekey_at,
    give_up_at,
    rekey_at,
    retry_delay,
)

TIMING = Timing()


def test_the_default_schedule_of_a_keypair():
    assert rekey_at(1000.0, TIMING) == 1120.0
    assert fallback_rekey_at(1000.0, TIMING) == 1165.0
    assert expires_at(1000.0, TIMING) == 1180.0


@given(rekey=st.floats(1, 1e4), span=st.floats(1, 1e4), created=st.floats(0, 1e6))
def test_the_three_moments_keep_their_order_whatever_the_settings(rekey, span, created):
    timing = Timing(rekey_after=rekey, reject_after=rekey + span)
    moments = [f(created, timing) for f in (rekey_at, fallback_rekey_at, expires_at)]
    assert moments == sorted(moments)


@given(tries=st.integers(1, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_retry_waits_grow_to_their_bound_and_jitter_only_adds(tries, chance):
    delay = retry_delay(tries, chance, TIMING)
    plain = retry_delay(tries, 0.0, TIMING)
    assert TIMING.handshake_retry <= plain <= TIMING.handshake_retry_max
    assert plain <= delay <= plain * (1 + RETRY_JITTER)
    assert retry_delay(tries + 1, 0.0, TIMING) >= plain


def test_a_first_handshake_is_given_up_and_a_rekey_lasts_as_long_as_the_old_keys():
    assert give_up_at(10.0, None, TIMING) == 30.0
    assert give_up_at(120.0, 180.0, TIMING) == 180.0
    assert give_up_at(165.0, 180.0, TIMING) == 185.0
