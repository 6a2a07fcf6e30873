"""Attachments as requests say them, and as answers show them.

    container   text            interface   text, eth0          network   text
    labels      {key: value}
    ingress     {"bits": per second, "burst": bits}, or bits per second alone; egress likewise
    ports       [{"protocol": "tcp", "host_port": 8080, "port": 80, "host": ""}, ...]
    handed      true or false

What is missing or null is what `overlay.attachment.Attachment` has by itself; a burst is then a
tenth of a second.
"""

from __future__ import annotations

from typing import Final, cast

from node.control.params import Params, flag, text
from node.control.schema import ControlError
from overlay.attachment import (
    DEFAULT_INTERFACE,
    MAX_RATE,
    Attachment,
    HostPort,
    Protocol,
    Rate,
)
from overlay.errors import ConfigError
from overlay.types import parse_address

SHORTEST_BURST: Final = 1 << 20
"""Bits: two super-packets, as they leave a pod at once."""

BURSTS_A_SECOND: Final = 10


def attachment_of(params: Params) -> Attachment:
    """What a request says of its pod.

    Raises:
        ControlError: `bad-request`, with the parameter's name. Nothing else.
    """
    said = Attachment(
        container=text(params, "container", ""),
        interface=text(params, "interface", "") or DEFAULT_INTERFACE,
        network=text(params, "network", ""),
        labels=_labels(params),
        ingress=_rate(params, "ingress"),
        egress=_rate(params, "egress"),
        ports=_ports(params),
        handed=flag(params, "handed"),
    )
    try:
        said.check()
    except ConfigError as error:
        raise _wrong(error.key, str(error)) from error
    return said


def present_attachment(said: Attachment) -> dict[str, object]:
    """The same names with the same values."""
    return {
        "container": said.container or None,
        "interface": said.interface,
        "network": said.network or None,
        "labels": dict(said.labels),
        "ingress": _present_rate(said.ingress),
        "egress": _present_rate(said.egress),
        "ports": [
            {
                "protocol": port.protocol,
                "host_port": port.host_port,
                "port": port.port,
                "host": port.host or None,
            }
            for port in said.ports
        ],
        "handed": said.handed,
    }


def _present_rate(rate: Rate | None) -> dict[str, int] | None:
    return None if rate is None else {"bits": rate.bits, "burst": rate.burst}


def _labels(params: Params) -> tuple[tuple[str, str], ...]:
    given = params.get("labels")
    if given is None:
        return ()
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise _wrong("labels", "an object of text is needed")
    return tuple(given.items())


def _rate(params: Params, key: str) -> Rate | None:
    given = params.get(key)
    if given is None:
        return None
    if not isinstance(given, dict):
        given = {"bits": given}
    bits = _integer(given, "bits", key)
    burst = min(max(bits // BURSTS_A_SECOND, SHORTEST_BURST), MAX_RATE)
    return Rate(bits, burst if given.get("burst") is None else _integer(given, "burst", key))


def _ports(params: Params) -> tuple[HostPort, ...]:
    given = params.get("ports")
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(port, dict) for port in given):
        raise _wrong("ports", "a list of objects is needed")
    return tuple(map(_port, given))


def _port(given: dict[str, object]) -> HostPort:
    protocol = str(given.get("protocol") or "tcp").lower()
    host = str(given.get("host") or "")
    try:
        shortest = str(parse_address(host)) if host else ""
    except ValueError:
        shortest = host  # `check` says what is wrong with it
    host_port, port = (_integer(given, key, "ports") for key in ("host_port", "port"))
    return HostPort(cast("Protocol", protocol), host_port, port, shortest)


def _integer(given: dict[str, object], key: str, of: str) -> int:
    value = given.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(of, f"{key} must be an integer")
    return value


def _wrong(key: str, why: str) -> ControlError:
    return ControlError("bad-request", f"{key}: {why}")
