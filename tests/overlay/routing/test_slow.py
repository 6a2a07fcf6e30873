"""Tests of overlay.routing.slow: small enough to be checked by hand."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_network

from overlay.routing.slow import SlowMatch


def match_of(*prefixes: str) -> SlowMatch[str]:
    match: SlowMatch[str] = SlowMatch()
    for prefix in prefixes:
        match.insert(ip_network(prefix), prefix)
    return match


def lookup(match: SlowMatch[str], address: str) -> str | None:
    return match.lookup(int(IPv4Address(address)))


def test_the_longest_prefix_that_contains_the_address_wins() -> None:
    match = match_of("0.0.0.0/0", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32")
    assert lookup(match, "10.1.2.3") == "10.1.2.3/32"
    assert lookup(match, "10.1.2.4") == "10.1.2.0/24"
    assert lookup(match, "10.1.3.0") == "10.1.0.0/16"
    assert lookup(match, "10.2.0.0") == "0.0.0.0/0"


def test_without_a_matching_prefix_there_is_no_target() -> None:
    assert lookup(match_of(), "10.0.0.1") is None
    assert lookup(match_of("10.1.0.0/16"), "10.2.0.0") is None


def test_a_removed_prefix_matches_no_longer() -> None:
    match = match_of("10.0.0.0/8", "10.1.0.0/16")
    match.remove(ip_network("10.1.0.0/16"))
    match.remove(ip_network("10.9.0.0/16"))
    assert lookup(match, "10.1.0.1") == "10.0.0.0/8"
