from __future__ import annotations

import json
import re

from overlay.drops import DropReason

# fmt: off
FIRST_RELEASE = [
    "malformed", "foreign_source", "no_route", "local_destination", "multicast", "oversize",
    "no_endpoint", "queue_full", "no_session", "send_failed", "truncated", "unknown_type",
    "bad_header", "unknown_index", "replayed", "bad_tag", "bad_handshake", "bad_certificate",
    "under_load", "reassembly_full", "reassembly_expired", "duplicate_segment", "bad_block",
    "unknown_block", "spoofed_source", "not_ours", "bad_control", "delivery_failed",
]
# fmt: on


def test_values_are_never_renamed():
    """They are counter labels and JSON keys of programs that are not ours."""
    assert set(FIRST_RELEASE) <= set(DropReason)


def test_values_are_their_own_names_in_lower_case():
    for reason in DropReason:
        assert reason.value == reason.name.lower()
        assert re.fullmatch("[a-z]+(_[a-z]+)*", reason)


def test_a_reason_is_text_wherever_text_is_wanted():
    assert json.dumps({DropReason.NO_ROUTE: 1}) == '{"no_route": 1}'
    assert DropReason("no_route") is DropReason.NO_ROUTE
