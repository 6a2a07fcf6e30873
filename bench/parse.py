"""What iperf3 and ping print, as figures. Pure functions of text.

References:
    iperf3(1), -J; ping(8) of iputils.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from node.errors import NodeError

_TIME: Final = re.compile(r"time=([0-9.]+) ms")
_COUNTS: Final = re.compile(r"(\d+) packets transmitted, (\d+) received")


class Stream(NamedTuple):
    """What arrived in one TCP measurement."""

    gbit: float
    """Gbit/s of payload, both directions added where there are two."""
    bytes: int


class Datagrams(NamedTuple):
    """What arrived in one UDP measurement."""

    delivered: float
    """Datagrams per second."""
    loss: float
    """Share of those sent, 0 to 1."""


class Pings(NamedTuple):
    """Round trips of one measurement."""

    milliseconds: tuple[float, ...]
    """Of every answer."""
    sent: int
    received: int


def parse_tcp(text: str) -> Stream:
    """The JSON of an iperf3 client over TCP, of one direction or both.

    Raises:
        NodeError: iperf3 reports an error, or prints something else. Nothing else.
    """
    end = _end(text)
    sums = [end[key] for key in ("sum_received", "sum_received_bidir_reverse") if key in end]
    if not sums:
        raise NodeError("iperf3 has printed no sum of what was received")
    rate = sum(float(each["bits_per_second"]) for each in sums)
    return Stream(rate / 1e9, sum(int(each["bytes"]) for each in sums))


def parse_udp(text: str) -> Datagrams:
    """The JSON of an iperf3 client over UDP. Counts are the receiver's.

    Raises:
        NodeError: iperf3 reports an error, or prints something else. Nothing else.
    """
    received = _end(text).get("sum_received")
    if not received or not received["seconds"]:
        raise NodeError("iperf3 has printed no sum of what was received")
    sent, lost = int(received["packets"]), int(received["lost_packets"])
    return Datagrams((sent - lost) / float(received["seconds"]), lost / sent if sent else 1.0)


def _end(text: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise NodeError(f"iperf3 has printed no JSON: {text.strip()[:80]!r}") from error
    if "error" in document:
        raise NodeError(f"iperf3: {document['error']}")
    end: Mapping[str, Any] = document.get("end", {})
    return end


def parse_ping(text: str) -> Pings:
    """The output of ping, one line per answer.

    Raises:
        NodeError: its summary is missing, or nothing was answered. Nothing else.
    """
    counts = _COUNTS.search(text)
    times = tuple(float(found) for found in _TIME.findall(text))
    if counts is None or not times:
        raise NodeError("ping got no answer")
    return Pings(times, int(counts[1]), int(counts[2]))
