"""One value of a setting: takes what TOML or a string gives, raises ValueError with one clause."""

from __future__ import annotations

import difflib
import grp
import os
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Final

from node.logs import LogFormat
from node.loop import LoopKind
from overlay.errors import ConfigError
from overlay.types import Endpoint, Prefix
from overlay.validity import LONGEST_DAYS, SHORTEST_DAYS
from overlay.wire.messages import LANES_LIMIT
from overlay.wire.routes import ROUTES_MAX

LOG_LEVELS: Final = ("debug", "info", "warning", "error")

DAY: Final = 86_400
"""Seconds. Longer than any rest is of use."""

LEAST_MTU: Final = 1280
"""What IPv6 demands of every link (RFC 8200, section 5); pods have IPv6."""
MOST_MTU: Final = 9000

MOST_UNDERLAY_MTU: Final = 9216
"""Where the path MTU stops looking (`overlay.routing.mtu.LARGEST`)."""

TUN_OFFLOADS: Final = ("checksum", "tso", "uso")
"""What the kernel of a TUN can do (`node.io.tun.OFFLOADS`)."""

LONGEST_TUN_NAME: Final = 15
"""IFNAMSIZ of the kernel without the closing zero byte."""

DOCKER_SOCKET: Final = "/run/docker/plugins/muslin.sock"
"""Where Docker finds a driver of the name muslin without being told."""

AUTO: Final = "auto"
"""How a setting says: find out."""
MOST_LANES_BY_ITSELF: Final = 8
"""What `auto` takes at most: more processes than that rarely find flows to share."""


def endpoint(value: object) -> Endpoint:
    """`ADDRESS:PORT`."""
    if not isinstance(value, str):
        raise ValueError('must be "ADDRESS:PORT"')
    try:
        return Endpoint.parse(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def endpoints(value: object) -> tuple[Endpoint, ...]:
    """A list of `ADDRESS:PORT`, or one text with commas; none of them a wildcard."""
    if isinstance(value, str):
        value = [item for item in value.split(",") if item]
    if not isinstance(value, list | tuple):
        raise ValueError('must be a list of "ADDRESS:PORT"')
    found = tuple(endpoint(item) for item in value)
    for one in found:
        if one.host in {"::", "0.0.0.0"}:  # noqa: S104 - refused, not bound
            raise ValueError(f"{one} is not an address that others can reach")
    return found


def prefixes(value: object) -> tuple[Prefix, ...]:
    """A list of `ADDRESS/LENGTH`, or one text with commas; each once, no host bits set."""
    if isinstance(value, str):
        value = [item.strip() for item in value.split(",") if item.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError('must be a list of "ADDRESS/LENGTH"')
    found = tuple(dict.fromkeys(_prefix(item) for item in value))
    if len(found) > ROUTES_MAX:
        raise ValueError(f"must be at most {ROUTES_MAX} networks, not {len(found)}")
    return found


def _prefix(value: object) -> Prefix:
    # Anything but text would be read as a number: 0 is 0.0.0.0/32.
    if not isinstance(value, str) or "/" not in value:
        raise ValueError(f'must be "ADDRESS/LENGTH", not {value!r}')
    try:
        return ip_network(value)
    except ValueError as error:
        raise ValueError(f"must be networks: {error}") from error


def mtu(value: object, most: int = MOST_MTU) -> int:
    """Bytes, `LEAST_MTU` to `most`."""
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"must be a number, {LEAST_MTU} to {most}")
    if not LEAST_MTU <= value <= most:
        raise ValueError(f"must be {LEAST_MTU} to {most}, not {value}")
    return value


def underlay_mtu(value: object) -> int | None:
    """As `mtu`; None for `auto`."""
    return None if value == AUTO else mtu(value, MOST_UNDERLAY_MTU)


def tun_offloads(value: object) -> tuple[str, ...]:
    """A list of names; true is all of them, false none."""
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower(), value)
    if isinstance(value, bool):
        return TUN_OFFLOADS if value else ()
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    if not isinstance(value, list | tuple) or not all(name in TUN_OFFLOADS for name in value):
        raise ValueError(f"must be true, false or a list of {', '.join(TUN_OFFLOADS)}")
    if value and "checksum" not in value:
        raise ValueError("must have checksum, which tso and uso build on")
    return tuple(name for name in TUN_OFFLOADS if name in value)


def lanes(value: object) -> int:
    """1 to `LANES_LIMIT`, or `auto`: the processors this process may use."""
    if value == "auto":
        return min(len(os.sched_getaffinity(0)), MOST_LANES_BY_ITSELF)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:9])
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LANES_LIMIT:
        raise ValueError(f"must be 1 to {LANES_LIMIT}, or auto, not {value!r}")
    return value


def seconds(value: object) -> int:
    """Whole seconds, 0 to a day."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:9])
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= DAY:
        raise ValueError(f"must be 0 to {DAY} seconds, not {value!r}")
    return value


def path(value: object) -> str:
    """The name of a file, or nothing."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("must be the name of a file")
    return value


def docker(value: object) -> str:
    """The path of a socket; true is where Docker looks for it, false and nothing are none."""
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower(), value)
    if isinstance(value, bool):
        return DOCKER_SOCKET if value else ""
    if not isinstance(value, str) or "\0" in value or (value and not value.startswith("/")):
        raise ValueError("must be true, false or the whole path of a socket")
    return value


def certificate_days(value: object) -> int:
    """Whole days that certificates live."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:9])
    days = value if isinstance(value, int) and not isinstance(value, bool) else 0
    if not SHORTEST_DAYS <= days <= LONGEST_DAYS:
        raise ValueError(f"must be {SHORTEST_DAYS} to {LONGEST_DAYS} days, not {value!r}")
    return days


def switch(value: object) -> bool:
    """True or false."""
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower(), value)
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {value!r}")
    return value


def interface(value: object) -> str:
    """The name of a network interface."""
    name = value if isinstance(value, str) else ""
    if not name.isascii() or not name.isprintable() or set(name) & set("/ :%") or name in "..":
        raise ValueError(f"{value!r} is not an interface name")
    if len(name) > LONGEST_TUN_NAME:
        raise ValueError(f"must be at most {LONGEST_TUN_NAME} characters, not {len(name)}")
    return name


def group(value: object) -> str:
    """The name of a group of this machine, or nothing."""
    name = value if isinstance(value, str) else None
    if name is None or not name.isprintable():
        raise ValueError(f"must be the name of a group, not {value!r}")
    if name:
        try:
            grp.getgrnam(name)
        except (KeyError, ValueError):
            raise ValueError(
                f"names no group of this machine: make it with groupadd {name}, or leave it out"
            ) from None
    return name


def choice(*choices: str) -> Callable[[object], str]:
    """One of `choices`."""

    def parse(value: object) -> str:
        if value not in choices:
            raise ValueError(
                f"must be {' or '.join(choices)}, not {value!r}{meant(value, choices)}"
            )
        return str(value)

    return parse


def loop_kind(value: object) -> LoopKind:
    """A kind of event loop."""
    return LoopKind(choice(*LoopKind)(value))


def log_format(value: object) -> LogFormat:
    """A format of logs."""
    return LogFormat(choice(*LogFormat)(value))


def meant(given: object, known: Mapping[str, object] | tuple[str, ...]) -> str:
    """A guess at what was meant by `given`, to be appended to an error, or nothing."""
    close = difflib.get_close_matches(str(given), list(known), n=1, cutoff=0.75)
    return f" (did you mean {close[0]}?)" if close else ""
