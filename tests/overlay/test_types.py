from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import ConfigError
from overlay.types import DEFAULT_PORT, Endpoint, NodeId, parse_address, short_id

addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
ports = st.integers(1, 65535)


@given(addresses, ports)
def test_an_endpoint_survives_its_own_text(address: IPv4Address | IPv6Address, port: int):
    endpoint = Endpoint.of(str(address), port)
    assert Endpoint.parse(str(endpoint)) == endpoint


@given(st.ip_addresses(v=6), ports)
def test_equal_addresses_are_equal_endpoints_however_they_are_written(address, port):
    short, long = Endpoint.of(str(address), port), Endpoint.of(address.exploded, port)
    assert short == long
    assert hash(short) == hash(long)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.7", "192.0.2.7", DEFAULT_PORT),
        ("192.0.2.7:1", "192.0.2.7", 1),
        ("2001:db8::1", "2001:db8::1", DEFAULT_PORT),
        ("[2001:DB8:0::1]", "2001:db8::1", DEFAULT_PORT),
        ("[2001:db8::1]:65535", "2001:db8::1", 65535),
        ("::", "::", DEFAULT_PORT),
        ("0.0.0.0:99", "0.0.0.0", 99),
        ("[::ffff:192.0.2.7]:99", "192.0.2.7", 99),
    ],
)
def test_what_operators_write_is_understood(text: str, host: str, port: int):
    assert Endpoint.parse(text) == Endpoint(host, port)


def test_the_default_port_is_the_callers():
    assert Endpoint.parse("192.0.2.7", 5).port == 5


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "host", "host:1", "192.0.2", "192.0.2.7:", "192.0.2.7:0", "192.0.2.7:65536",
        "192.0.2.7:-1", "192.0.2.7:+1", "192.0.2.7:1_0", "192.0.2.7: 1", "192.0.2.7:x",
        "192.0.2.7:\u0661", "[::1]1", "[::1]:", "[::1", "::1]:1", "[]:1", "[192.0.2.7:1",
        " 192.0.2.7", "2001:db8::1:", "1.2.3.4:5:6", "192.0.2.7:" + "1" * 5000,
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_anything_else_is_refused_with_the_text_in_the_message(text: str):
    with pytest.raises(ConfigError) as caught:
        Endpoint.parse(text)
    assert repr(text) in str(caught.value)


@given(st.text(alphabet="0123456789abcdef.:[]%/ ", max_size=24))
def test_no_text_raises_anything_else(text: str):
    try:
        endpoint = Endpoint.parse(text)
    except ConfigError:
        return
    assert Endpoint.parse(str(endpoint)) == endpoint


def test_addresses_as_the_kernel_gives_them_are_normalised():
    assert Endpoint.of("::ffff:192.0.2.7", 1) == Endpoint("192.0.2.7", 1)
    assert Endpoint.of("fe80::1%eth0", 1) == Endpoint("fe80::1", 1)


def test_header_overhead_is_that_of_the_family():
    assert Endpoint("192.0.2.7", 1).ip_overhead == 20 + 8
    assert Endpoint("2001:db8::1", 1).ip_overhead == 40 + 8


def test_a_short_id_is_eight_hex_digits():
    assert short_id(NodeId(bytes(range(32)))) == "00010203"


@given(addresses)
def test_an_address_survives_its_own_text(address):
    assert parse_address(str(address)) == parse_address(address.exploded) == address


@pytest.mark.parametrize("text", ["", "here", "10.1", "fe80::1%eth0", "::1%x\nflush ruleset"])
def test_an_address_has_no_name_and_no_zone(text: str):
    with pytest.raises(ValueError, match=r"zone|not appear"):
        parse_address(text)
