"""Tests of the four kinds of NAT (RFC 3489, section 5)."""

from __future__ import annotations

import pytest

from overlay.sim.nat import FIRST_PORT, LAST_PORT, Nat, NatKind
from overlay.types import Endpoint

INSIDE = Endpoint("172.16.0.1", 6875)
OTHER_INSIDE = Endpoint("172.16.0.2", 6875)
FAR = Endpoint("198.18.0.9", 6875)
FAR_OTHER_PORT = Endpoint("198.18.0.9", 7000)
STRANGER = Endpoint("198.18.0.12", 6875)


def nat(kind: NatKind, timeout: float = 60.0) -> Nat:
    return Nat("nat1", "198.18.0.1", kind, timeout)


@pytest.mark.parametrize(
    ("kind", "let_in"),
    [
        (NatKind.FULL_CONE, [FAR, FAR_OTHER_PORT, STRANGER]),
        (NatKind.ADDRESS_RESTRICTED, [FAR, FAR_OTHER_PORT]),
        (NatKind.PORT_RESTRICTED, [FAR]),
        (NatKind.SYMMETRIC, [FAR]),
    ],
)
def test_each_kind_lets_in_what_it_should_and_nothing_else(kind, let_in):
    device = nat(kind)
    public = device.outbound(INSIDE, FAR, 0.0)
    assert public.host == "198.18.0.1"
    for source in (FAR, FAR_OTHER_PORT, STRANGER):
        expected = INSIDE if source in let_in else None
        assert device.inbound(public.port, source, 1.0) == expected, source


@pytest.mark.parametrize("kind", list(NatKind))
def test_only_a_symmetric_nat_shows_another_port_to_each_destination(kind):
    device = nat(kind)
    ports = {device.outbound(INSIDE, to, 0.0).port for to in (FAR, FAR_OTHER_PORT, STRANGER)}
    assert len(ports) == (3 if kind is NatKind.SYMMETRIC else 1)
    assert device.outbound(OTHER_INSIDE, FAR, 0.0).port not in ports


@pytest.mark.parametrize("kind", list(NatKind))
def test_sending_renews_a_mapping_and_receiving_does_not(kind):
    device = nat(kind, timeout=60.0)
    public = device.outbound(INSIDE, FAR, 0.0)
    assert device.outbound(INSIDE, FAR, 59.0) == public
    assert device.inbound(public.port, FAR, 118.0) == INSIDE
    assert device.inbound(public.port, FAR, 119.0) is None
    assert device.outbound(INSIDE, FAR, 119.0) != public
    assert device.inbound(public.port, FAR, 119.0) is None


def test_a_restriction_lapses_by_itself_while_the_mapping_lives():
    device = nat(NatKind.PORT_RESTRICTED, timeout=60.0)
    public = device.outbound(INSIDE, FAR, 0.0)
    device.outbound(INSIDE, STRANGER, 50.0)
    assert device.inbound(public.port, STRANGER, 70.0) == INSIDE
    assert device.inbound(public.port, FAR, 70.0) is None


def test_nobody_gets_in_where_nothing_was_sent():
    assert nat(NatKind.FULL_CONE).inbound(FIRST_PORT, FAR, 0.0) is None


def test_ports_of_expired_mappings_are_used_again_before_living_ones_are_taken():
    device = nat(NatKind.SYMMETRIC, timeout=10.0)
    for number in range(LAST_PORT - FIRST_PORT + 1):
        device.outbound(INSIDE, Endpoint("198.18.0.9", number), 0.0)
    assert device.outbound(INSIDE, STRANGER, 20.0).port == FIRST_PORT
