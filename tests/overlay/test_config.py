"""The relations between settings that the rest of the program relies on."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from overlay.config import Limits, Settings, Timing
from overlay.wire.burst import BLOCK_HEADER_SIZE, MAX_BURST

TIMINGS = [Timing(), Timing.quick()]


@pytest.mark.parametrize("timing", TIMINGS, ids=["default", "quick"])
def test_a_session_is_replaced_well_before_it_must_not_be_used(timing: Timing):
    """The handshake of the new one has to fit between the two."""
    spare = timing.reject_after - timing.rekey_after
    assert spare > timing.handshake_retry_max
    assert timing.handshake_retry <= timing.handshake_retry_max <= timing.handshake_give_up


@pytest.mark.parametrize("timing", TIMINGS, ids=["default", "quick"])
def test_a_suspect_has_time_to_contradict_and_a_silent_peer_to_be_probed_again(timing: Timing):
    assert timing.suspicion * timing.probe_interval > 4 * timing.probe_timeout
    assert timing.suspicion_most > 1
    assert timing.silent_after >= 3 * timing.probe_interval


def test_session_times_are_wireguards():
    assert (Timing().rekey_after, Timing().reject_after) == (120.0, 180.0)


def test_a_control_message_and_a_record_fit_one_burst():
    limits = Limits()
    assert limits.control_message + BLOCK_HEADER_SIZE <= MAX_BURST
    assert limits.record < limits.control_message


def test_a_queue_takes_a_super_packet_and_a_session_not_the_whole_table():
    limits = Limits()
    assert limits.queued_bytes >= 62_000
    assert limits.reassembly_per_session < limits.reassembly_total


@pytest.mark.parametrize("part", [Timing(), Limits(), Settings()], ids=["timing", "limits", "all"])
def test_settings_are_frozen(part):
    for field in fields(part):
        with pytest.raises(FrozenInstanceError):
            setattr(part, field.name, 1)


def test_every_number_is_positive():
    for part in (Timing(), Limits(), Timing.quick()):
        assert all(getattr(part, field.name) > 0 for field in fields(part))
