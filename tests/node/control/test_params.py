"""Parameters of control requests."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from node.control import params
from node.control.params import routes
from node.control.schema import ControlError
from overlay.errors import ConfigError


def test_what_is_given_is_taken() -> None:
    given = {"a": "x", "n": 2, "yes": True, "request": 2**64 - 1, "ip": "fd00::1"}
    assert params.text(given, "a") == "x"
    assert params.number(given, "n", 1.0) == 2.0
    assert params.flag(given, "yes") is True
    assert params.request_number(given) == 2**64 - 1
    assert params.address(given, "ip") == ip_address("fd00::1")


def test_what_is_missing_has_its_default() -> None:
    assert params.text({"a": None}, "a", "d") == "d"
    assert params.text({"a": ""}, "a", "d") == ""
    assert params.number({}, "n", 1.5) == 1.5
    assert params.flag({}, "yes") is False
    assert params.address({}, "ip") is None


@pytest.mark.parametrize(
    ("read", "given"),
    [
        (lambda given: params.text(given, "a"), {}),
        (lambda given: params.text(given, "a"), {"a": ""}),
        (lambda given: params.text(given, "a", "d"), {"a": 5}),
        (lambda given: params.number(given, "n", 1.0), {"n": "1"}),
        (lambda given: params.number(given, "n", 1.0), {"n": True}),
        (lambda given: params.number(given, "n", 1.0), {"n": 10**400}),
        (lambda given: params.number(given, "n", 1.0), {"n": float("nan")}),
        (lambda given: params.number(given, "n", 1.0), {"n": float("inf")}),
        (lambda given: params.flag(given, "yes"), {"yes": 1}),
        (params.request_number, {}),
        (params.request_number, {"request": 2**64}),
        (params.request_number, {"request": True}),
        (lambda given: params.address(given, "ip"), {"ip": "10.1"}),
        (lambda given: params.address(given, "ip"), {"ip": "fd00::1%eth0"}),
    ],
)
def test_anything_else_is_a_bad_request(read, given) -> None:
    with pytest.raises(ControlError) as caught:
        read(given)
    assert caught.value.code == "bad-request"


def test_routes_are_a_list_of_networks() -> None:
    assert routes({}) is None
    assert routes({"routes": []}) == ()
    assert routes({"routes": ["192.168.7.0/24"]}) == (ip_network("192.168.7.0/24"),)
    for wrong in ("192.168.7.0/24", [7], {}):
        with pytest.raises(ControlError):
            routes({"routes": wrong})
    with pytest.raises(ConfigError) as caught:
        routes({"routes": ["192.168.7.1/24"]})
    assert caught.value.key == "--route"
