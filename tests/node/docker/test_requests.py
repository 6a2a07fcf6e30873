from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from node.control.schema import ControlError
from node.docker.requests import (
    FREE_PORTS,
    PortWanted,
    address_wanted,
    check_network,
    choose_ports,
    endpoint_wanted,
    identifier,
    is_gateway,
    pool_version,
    pool_wanted,
)
from overlay.attachment import MAX_PORTS, HostPort

NETWORK = "ab" * 32
ENDPOINT = "cd" * 32
RANGES = {4: ip_network("10.244.0.0/16"), 6: ip_network("fd00:1::/48")}
Json = dict[str, Any]


def network(space: str = "muslin", **options: object) -> Json:
    """What Docker 20.10 sends with `docker network create`."""
    generic = options.pop("generic", {})
    return {
        "NetworkID": NETWORK,
        "Options": {
            "com.docker.network.enable_ipv6": False,
            "com.docker.network.generic": generic,
            **options,
        },
        "IPv4Data": [
            {"AddressSpace": space, "Pool": "0.0.0.0/0", "Gateway": "169.254.1.1/32"},
        ],
        "IPv6Data": None,
    }


def endpoint(ports: object = None, **interface: object) -> Json:
    """What it sends with `docker run`."""
    return {
        "NetworkID": NETWORK,
        "EndpointID": ENDPOINT,
        "Interface": {"Address": "10.244.0.7/32", "AddressIPv6": "", "MacAddress": ""} | interface,
        "Options": {
            "com.docker.network.endpoint.exposedports": [{"Proto": 6, "Port": 80}],
            "com.docker.network.portmap": ports,
        },
    }


def binding(first: int = 8080, last: int = 0, host: str = "", proto: object = 6) -> Json:
    return {
        "Proto": proto,
        "IP": "",
        "Port": 80,
        "HostIP": host,
        "HostPort": first,
        "HostPortEnd": last or first,
    }


def code(call: Callable[[], object]) -> str:
    with pytest.raises(ControlError) as raised:
        call()
    return raised.value.code


def test_a_network_with_addresses_of_ours_can_be_made():
    assert check_network(network()) == NETWORK


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (network("LocalDefault"), "other-ipam"),
        ({"NetworkID": NETWORK, "IPv4Data": [], "IPv6Data": []}, "other-ipam"),
        (network(**{"com.docker.network.internal": True}), "unknown-option"),
        (network(generic={"com.docker.network.driver.mtu": "1400"}), "unknown-option"),
        ({"NetworkID": NETWORK, "IPv4Data": "x"}, "bad-request"),
        ({"NetworkID": NETWORK, "IPv4Data": ["x"]}, "bad-request"),
        ({"NetworkID": "../x"}, "bad-request"),
        ({}, "bad-request"),
    ],
)
def test_a_network_that_cannot_be_is_refused(body: Json, expected: str):
    assert code(lambda: check_network(body)) == expected


@pytest.mark.parametrize("value", ["", None, 7, "a" * 129, "a b", "a/b", "ä" * 0 + "\n"])
def test_an_id_is_short_and_plain(value: object):
    assert code(lambda: identifier({"EndpointID": value}, "EndpointID")) == "bad-request"


def test_an_endpoint_has_addresses_and_ports():
    wanted = endpoint_wanted(endpoint([binding(), binding(host="0.0.0.0"), binding(9000, 9010)]))
    assert (wanted.network, wanted.endpoint, wanted.mac) == (NETWORK, ENDPOINT, "")
    assert (wanted.address, wanted.address6) == (ip_address("10.244.0.7"), None)
    assert wanted.ports == (
        PortWanted(HostPort("tcp", 8080, 80), 8080),
        PortWanted(HostPort("tcp", 9000, 80), 9010),
    )


def test_an_endpoint_may_have_ipv6_and_a_mac_of_its_own():
    body = endpoint(AddressIPv6="fd00:1::7/128", MacAddress="02:42:00:00:00:01")
    wanted = endpoint_wanted(body)
    assert wanted.address6 == ip_address("fd00:1::7")
    assert wanted.mac == "02:42:00:00:00:01"
    assert endpoint_wanted(endpoint(Address="", AddressIPv6="fd00:1::7/128")).address is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (endpoint(Address=""), "other-ipam"),
        (endpoint(Address="10.244.0.7/99"), "bad-request"),
        (endpoint([binding(proto=1)]), "bad-request"),
        (endpoint([binding(host="here")]), "bad-request"),
        (endpoint([binding(host="::1%x\nflush ruleset")]), "bad-request"),
        (endpoint([binding(proto=[])]), "bad-request"),
        (endpoint(Address=7), "bad-request"),
        (endpoint([binding(70_000)]), "bad-request"),
        (endpoint([binding(1 + port) for port in range(MAX_PORTS + 1)]), "bad-request"),
        (endpoint(["x"]), "bad-request"),
        (endpoint({"x": 1}), "bad-request"),
        ({"NetworkID": NETWORK, "EndpointID": ENDPOINT, "Interface": 7}, "bad-request"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused(body: Json, expected: str):
    assert code(lambda: endpoint_wanted(body)) == expected


def wanted(first: int, last: int = 0, host: str = "") -> PortWanted:
    return PortWanted(HostPort("tcp", first, 80, host), last or first)


def test_ports_of_the_host_are_the_first_that_are_free():
    taken = [HostPort("tcp", 9000, 1), HostPort("udp", 9001, 1)]
    chosen = choose_ports([wanted(8080), wanted(9000, 9005), wanted(9000, 9005)], taken)
    assert [port.host_port for port in chosen] == [8080, 9001, 9002]


def test_a_port_that_docker_leaves_open_is_a_dynamic_one():
    first, second = choose_ports([wanted(0), wanted(0)], [])
    assert {first.host_port, second.host_port} <= set(FREE_PORTS)
    assert first.host_port != second.host_port


def test_what_a_port_costs_does_not_grow_with_the_ports_that_others_have(monkeypatch):
    """An image says how many ports it exposes, and `docker run -P` publishes all of them."""
    compared = []
    collides = HostPort.collides
    monkeypatch.setattr(HostPort, "collides", lambda *two: compared.append(two) or collides(*two))
    taken = [HostPort("tcp", port, 1) for port in FREE_PORTS[:500]]
    chosen = choose_ports([wanted(0)] * 50, taken)
    assert [port.host_port for port in chosen] == list(FREE_PORTS[500:550])
    assert len(compared) <= 50 * 550


def test_two_addresses_of_the_host_have_ports_of_their_own():
    choose_ports([wanted(80, host="192.0.2.1")], [HostPort("tcp", 80, 1, "192.0.2.2")])
    held = [HostPort("tcp", 80, 1)]
    assert code(lambda: choose_ports([wanted(80, host="192.0.2.1")], held)) == "port-taken"


def test_the_pool_is_the_clusters_range_if_it_is_named_and_no_range_if_not():
    assert pool_wanted({"Pool": "", "V6": False}, RANGES) == "0.0.0.0/0"
    assert pool_wanted({"V6": True}, RANGES) == "::/0"
    assert pool_wanted({"Options": {"com.docker.network.x": ""}}, RANGES) == "0.0.0.0/0"
    assert pool_wanted({"Options": None}, RANGES) == "0.0.0.0/0"
    assert pool_wanted({"Pool": "10.244.0.0/16"}, RANGES) == "10.244.0.0/16"
    assert pool_wanted({"Pool": "fd00:1::/48", "V6": True}, RANGES) == "fd00:1::/48"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"Pool": "10.0.0.0/8"}, "other-range"),
        ({"Pool": "10.244.0.0/24"}, "other-range"),
        ({"Pool": "fd00:1::/48"}, "other-range"),
        ({"Pool": "nonsense"}, "other-range"),
        ({"Pool": "10.244.0.0/16", "SubPool": "10.244.3.0/24"}, "other-range"),
        ({"Pool": 7}, "bad-request"),
        ({"Pool": "", "Options": {"x": "y"}}, "unknown-option"),
    ],
)
def test_another_pool_is_refused(body: Json, expected: str):
    assert code(lambda: pool_wanted(body, RANGES)) == expected


def test_a_cluster_without_ipv6_has_no_such_pool():
    assert code(lambda: pool_wanted({"V6": True}, {4: RANGES[4], 6: None})) == "no-ipv6"


def test_requests_about_addresses():
    assert pool_version({"PoolID": "0.0.0.0/0"}) == 4
    assert pool_version({"PoolID": "fd00:1::/48"}) == 6
    assert code(lambda: pool_version({"PoolID": "LocalDefault/x"})) == "bad-request"
    assert address_wanted({"Address": ""}) is None
    assert address_wanted({"Address": "10.244.0.9"}) == ip_address("10.244.0.9")
    assert code(lambda: address_wanted({"Address": "10.244.0"})) == "bad-request"


def test_the_gateway_is_no_address_of_the_pool():
    typed = {"Options": {"RequestAddressType": "com.docker.network.gateway"}}
    assert is_gateway({}, ip_address("169.254.1.1"))
    assert is_gateway({}, ip_address("fe80::1"))
    assert is_gateway(typed, None)
    assert not is_gateway({"Options": None}, None)
    assert not is_gateway({}, ip_address("10.244.0.1"))
    assert code(lambda: is_gateway(typed, ip_address("10.244.0.1"))) == "other-gateway"
