"""How much gets from one pod to another, as iperf3 measures it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from overlay.views import PodView
from tests.support.processes import PATIENCE, attempt, background

DATAGRAM = 1400


@contextmanager
def _listening(pod: PodView) -> Iterator[None]:
    with background(pod.netns, "iperf3", "-s", "--forceflush") as server:
        while "listening" not in server.line(PATIENCE):
            pass
        yield


def measured(source: PodView, target: PodView, seconds: float, *, udp: str = "") -> float:
    """Bits per second of payload that arrived.

    Args:
        source: of the packets.
        target: of the packets.
        seconds: to send for.
        udp: bits per second to send, as iperf3 reads it; empty for TCP.
    """
    words = ["iperf3", "-J", "-c", str(target.address), "-t", f"{seconds:g}"]
    if udp:
        words += ["-u", "-b", udp, "-l", str(DATAGRAM)]
    with _listening(target):
        done = attempt(source.netns, *words, timeout=seconds + 3 * PATIENCE)
    end = json.loads(done.stdout)["end"]
    if udp:
        return float(end["sum"]["bits_per_second"] * (1 - end["sum"]["lost_percent"] / 100))
    return float(end["sum_received"]["bits_per_second"])
