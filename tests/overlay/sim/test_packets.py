"""Tests of the packets that simulated pods send."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6

from overlay.sim.packets import PORT, udp


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.binary(max_size=100), st.integers(1, 255))
def test_an_ipv4_packet_is_what_scapy_builds_from_the_same_fields(source, target, payload, ttl):
    scapy = IP(src=str(source), dst=str(target), ttl=ttl, id=0) / UDP(sport=PORT, dport=PORT)
    assert udp(source, target, payload, ttl=ttl) == bytes(scapy / payload)


def test_an_ipv6_packet_is_what_scapy_builds_from_the_same_fields():
    source, target = ip_address("fd00::1:2"), ip_address("fd00::2:2")
    scapy = IPv6(src=str(source), dst=str(target), hlim=64) / UDP(sport=PORT, dport=PORT) / b"hello"
    assert udp(source, target, b"hello") == bytes(scapy)
