"""Parameters of a request, checked: they come from whoever may open the control socket."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from math import inf, isfinite
from typing import Final

from node.control.schema import ControlError
from overlay.errors import ConfigError
from overlay.types import Address, Prefix, parse_address

Params = Mapping[str, object]

LONGEST_TTL: Final = 30 * 86400.0
"""A token is a key under the mat; nobody should find one that is a year old."""


def text(params: Params, key: str, default: str | None = None) -> str:
    """Text that is not empty; `default`, if there is one, for what is missing or null.

    Raises:
        ControlError: `bad-request`. Nothing else.
    """
    value = params.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or (not value and default is None):
        raise ControlError("bad-request", f"{key} must be text")
    return value


def number(params: Params, key: str, default: float) -> float:
    """A number of seconds; not NaN, of which timers would make anything.

    Raises:
        ControlError: `bad-request`. Nothing else.
    """
    value = params.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ControlError("bad-request", f"{key} must be a number of seconds")
    try:
        seconds = float(value)
    except OverflowError:  # JSON has integers of any length
        seconds = inf
    if not isfinite(seconds):  # Python's JSON has these as well
        raise ControlError("bad-request", f"{key} is no number of seconds")
    return seconds


def request_number(params: Params) -> int:
    """The `request` of a measurement, 64 bits.

    Raises:
        ControlError: `bad-request`. Nothing else.
    """
    request = params.get("request")
    if not isinstance(request, int) or isinstance(request, bool) or not 0 <= request < 1 << 64:
        raise ControlError("bad-request", "request must be a number of 64 bits")
    return request


def flag(params: Params, key: str) -> bool:
    """True or false; false if it is missing.

    Raises:
        ControlError: `bad-request`. Nothing else.
    """
    value = params.get(key, False)
    if not isinstance(value, bool):
        raise ControlError("bad-request", f"{key} must be true or false")
    return value


def address(params: Params, key: str) -> Address | None:
    """An IP address; None if it is missing.

    Raises:
        ControlError: `bad-request`. Nothing else.
    """
    given = text(params, key, "")
    try:
        return parse_address(given) if given else None
    except ValueError as error:
        raise ControlError("bad-request", f"{key}: {given!r} is not an address") from error


def routes(params: Params) -> tuple[Prefix, ...] | None:
    """Outside routes; None if they are missing.

    Raises:
        ControlError: `bad-request`.
        ConfigError: see `parse_routes`. Nothing else.
    """
    given = params.get("routes")
    if given is None:
        return None
    if not isinstance(given, list) or not all(isinstance(route, str) for route in given):
        raise ControlError("bad-request", "routes must be a list of text")
    return parse_routes(given)


def parse_routes(routes: list[str]) -> tuple[Prefix, ...]:
    """Outside routes as they are typed.

    Raises:
        ConfigError: one is no prefix; its key is `--route`. Nothing else.
    """
    try:
        return tuple(map(ip_network, routes))
    except ValueError as error:
        raise ConfigError(str(error), "--route") from error


def wrong_ttl(ttl: float) -> str:
    """Why a token cannot be good for `ttl` seconds, in one clause; empty if it can.

    >>> wrong_ttl(0.0), wrong_ttl(60.0)
    ('must be 1 second to 30 days, not 0 s', '')
    """
    if 1.0 <= ttl <= LONGEST_TTL:
        return ""
    return f"must be 1 second to {LONGEST_TTL / 86400:g} days, not {ttl:.0f} s"
