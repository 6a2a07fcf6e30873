"""Proof that the proofs are alive: with a limit on strangers taken away, its test fails."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from overlay.session.cookie import MacChecker
from overlay.session.copies import Copies
from overlay.session.index import IndexTable
from overlay.session.ratelimit import LoadMeter, RateLimit, Responses
from overlay.wire.reassembly import Reassembly
from tests.overlay.session import (
    test_gate,
    test_gate_under_load,
    test_index,
    test_ratelimit,
    test_sessions,
)
from tests.overlay.wire import test_reassembly

Patch = Callable[[pytest.MonkeyPatch], None]


def method(owner: type, name: str, instead: Callable[..., object]) -> Patch:
    """Put something else in the place of a method."""
    return lambda patch: patch.setattr(owner, name, instead)


def yes(*_: object) -> bool:
    return True


def no(*_: object) -> bool:
    return False


def nothing(*_: object) -> None:
    return None


def everybody_is_another(name: str) -> Patch:
    """No two datagrams are of one source, or of one network."""
    numbers = count()
    return lambda patch: patch.setattr(
        f"overlay.session.ratelimit.{name}", lambda host: next(numbers)
    )


def without_token_limit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("overlay.session.index.PER_TOKEN", 1 << 30)


def without_bound_of_failures(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RateLimit, "look", lambda self, now: self.meter.look(now))


def without_key_comparison(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("overlay.session.gate.compare_digest", yes)


def without_sources(patch: pytest.MonkeyPatch) -> None:
    take = Reassembly.take
    patch.setattr(
        Reassembly,
        "take",
        lambda self, header, piece, source, now: take(self, header, piece, None, now),
    )


def the_oldest_of_all(patch: pytest.MonkeyPatch) -> None:
    def make_room(self: Any, _: int) -> int:
        full = len(self._bursts) >= self._total
        return int(self._remove(next(iter(self._bursts)))) if full else 0

    patch.setattr(Reassembly, "_make_room", make_room)


CASES: dict[str, tuple[Patch, Callable[..., None]]] = {
    "mac1": (
        method(MacChecker, "check_mac1", nothing),
        test_gate.test_a_message_without_a_valid_mac1_is_refused_silently,
    ),
    "load": (
        method(LoadMeter, "arrived", no),
        test_gate_under_load.test_under_load_a_cookie_comes_back_and_the_next_try_shows_it,
    ),
    "mac2": (
        method(MacChecker, "mac2_is_valid", yes),
        test_gate_under_load.test_a_cookie_does_not_help_from_another_address,
    ),
    "copies": (
        method(Copies, "is_copy", no),
        test_gate_under_load.test_copies_make_no_load_and_get_no_cookie,
    ),
    "turns at cookies": (
        method(RateLimit, "cookie", yes),
        test_gate_under_load.test_a_flood_from_one_address_leaves_turns_at_cookies_to_others,
    ),
    "sources": (
        everybody_is_another("source_of"),
        test_gate_under_load.test_a_flood_from_one_address_leaves_turns_at_cookies_to_others,
    ),
    "networks": (
        everybody_is_another("network_of"),
        test_gate_under_load.test_a_flood_from_a_whole_network_leaves_turns_at_cookies_to_others,
    ),
    "turns at handshakes": (
        method(RateLimit, "handshake", yes),
        test_gate_under_load.test_ten_thousand_real_addresses_of_one_network_leave_turns_to_others,
    ),
    "failures": (
        method(RateLimit, "failed", nothing),
        test_gate_under_load.test_a_real_flood_from_everywhere_is_looked_at_once_a_minute_and_then_a_newcomer_gets_in,
    ),
    "members": (
        method(RateLimit, "remember", nothing),
        test_gate_under_load.test_a_member_gets_in_at_its_address_when_all_other_turns_are_taken,
    ),
    "responses": (
        method(Responses, "take", yes),
        test_gate_under_load.test_wrong_responses_to_a_handshake_that_runs_are_not_read_without_end,
    ),
    "the key in front of the certificate": (
        without_key_comparison,
        test_gate.test_a_certificate_of_somebody_else_is_not_looked_up,
    ),
    "the end of a load": (
        method(LoadMeter, "look", lambda self, now: self.loaded),
        test_ratelimit.test_load_begins_at_once_above_the_limit_and_ends_after_calm_seconds,
    ),
    "half-open keypairs of a token": (
        without_token_limit,
        test_index.test_who_has_a_token_pushes_out_only_keypairs_of_the_same_token,
    ),
    "half-open keypairs in all": (
        method(IndexTable, "oldest_half_open", nothing),
        test_sessions.test_half_open_keypairs_are_bounded_and_the_oldest_goes,
    ),
    "bursts of a session": (
        the_oldest_of_all,
        test_reassembly.test_who_sees_an_index_cannot_push_out_the_bursts_of_its_owner,
    ),
    "bursts in all": (
        the_oldest_of_all,
        test_reassembly.test_who_sees_ten_indexes_cannot_push_out_the_bursts_of_other_sessions,
    ),
    "bursts of a source": (
        without_sources,
        test_reassembly.test_a_segment_from_another_address_does_not_spoil_a_burst,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_without_the_limit_its_test_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, test = CASES[name]
    test()
    patch(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception, ValueError)):
        test()


def test_without_its_bound_the_table_of_failures_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    without_bound_of_failures(monkeypatch)
    with pytest.raises(AssertionError):
        test_ratelimit.test_tables_of_sources_are_bounded_swept_and_emptied_after_the_load(
            monkeypatch
        )
