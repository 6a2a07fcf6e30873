from __future__ import annotations

import json

import pytest

from node.docker import answers
from overlay.attachment import HostPort

POD = {
    "name": "docker-cdcdcdcdcdcd",
    "address": "10.244.0.7",
    "link": "mus0123456789ab",
    "peer": "mup0123456789ab",
    "mac": "02:00:00:00:00:01",
}


def test_the_scope_is_local_because_docker_shares_no_state_of_it():
    assert answers.CAPABILITIES["Scope"] == "local"


def test_docker_is_told_both_drivers_and_need_not_repeat_its_requests():
    assert answers.ACTIVATED == {"Implements": ["NetworkDriver", "IpamDriver"]}
    assert answers.IPAM_CAPABILITIES["RequiresRequestReplay"] is False


def test_a_pool_brings_the_gateway_so_that_no_address_is_spent_on_it():
    assert answers.pool("::/0") == {
        "PoolID": "::/0",
        "Pool": "::/0",
        "Data": {"com.docker.network.gateway": "fe80::1/128"},
    }


def test_a_mac_is_told_unless_docker_has_one():
    assert answers.created(POD, mac_given=False) == {"Interface": {"MacAddress": POD["mac"]}}
    assert answers.created(POD, mac_given=True) == {"Interface": {}}


@pytest.mark.parametrize("dual", [False, True])
def test_the_gateways_are_reached_by_connected_routes(dual: bool):
    answer = answers.joined(POD, dual=dual)
    assert answer["InterfaceName"] == {"SrcName": POD["peer"], "DstPrefix": "eth"}
    assert answer["Gateway"] == "169.254.1.1"
    assert answer["GatewayIPv6"] == ("fe80::1" if dual else "")
    routes = [{"Destination": "169.254.1.1/32", "RouteType": 1, "NextHop": ""}]
    routes += [{"Destination": "fe80::1/128", "RouteType": 1, "NextHop": ""}] if dual else []
    assert answer["StaticRoutes"] == routes


def test_what_was_published_is_told_in_dockers_words():
    told = answers.operational(POD, (HostPort("udp", 5353, 53, "192.0.2.1"),))
    assert json.loads(json.dumps(told))["Value"] == {
        "muslin.pod": "docker-cdcdcdcdcdcd",
        "muslin.link": "mus0123456789ab",
        "com.docker.network.portmap": [
            {
                "Proto": 17,
                "IP": "10.244.0.7",
                "Port": 53,
                "HostIP": "192.0.2.1",
                "HostPort": 5353,
                "HostPortEnd": 5353,
            }
        ],
    }
