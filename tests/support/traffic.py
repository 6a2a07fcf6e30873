"""Traffic between pods and nodes of a lab, each with what has to be true of it."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from node.kernel import netns
from tests.support.labs import Place
from tests.support.processes import PATIENCE, Background, attempt, background, run

TOOL = (sys.executable, "-m", "node.lab.traffic")
PORT = 5001
ECHO_PORT = 5002

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@contextmanager
def serving(place: Place, *words: object) -> Iterator[Background]:
    """A server of `node.lab.traffic`, for the time of a `with` block."""
    with background(place.netns, *TOOL, *map(str, words)) as server:
        assert server.answer(PATIENCE) == {"ready": True}
        yield server


def client(place: Place, *words: object, timeout: float = 60.0) -> dict[str, Any]:
    """What a client command of `node.lab.traffic` answers."""
    answer = json.loads(run(place.netns, *TOOL, *map(str, words), timeout=timeout))
    assert isinstance(answer, dict)
    return answer


def copy(
    source: Place, target: Place, size: int, *, family: int = 4, timeout: float = 60.0
) -> None:
    """Move `size` bytes over one TCP connection; all of them arrive as they were sent."""
    with serving(target, "receive", PORT) as receiver:
        sent = client(source, "send", target.at(family), PORT, size, timeout=timeout)
        received = receiver.answer(timeout)
    assert (received["bytes"], received["sha256"]) == (size, sent["sha256"])
    assert received["peer"] == source.at(family)


def echo_datagrams(source: Place, target: Place, sizes: Iterable[int], *, family: int = 4) -> None:
    """A UDP datagram of each size comes back as it was sent."""
    with serving(target, "echo", ECHO_PORT):
        answer = client(source, "datagrams", target.at(family), ECHO_PORT, *sizes)
    assert answer["wrong"] == []


def ping(
    source: Place, address: str, *options: str, count: int = 1, wait: int = 10
) -> tuple[str, float]:
    """What `ping` printed, and the share of lost packets, 0 to 1."""
    words = ["ping", "-n", "-c", str(count), "-W", str(wait), *options, address]
    done = attempt(source.netns, *words, timeout=PATIENCE + count)
    found = re.search(r"([0-9.]+)% packet loss", done.stdout)
    return done.stdout + done.stderr, float(found[1]) / 100 if found else 1.0


def reaches(source: Place, address: str, *options: str) -> bool:
    """Whether one ping is answered within a second: to ask again, or where none shall be."""
    return ping(source, address, *options, wait=1)[1] == 0.0


def is_answered(source: Place, address: str, *options: str) -> bool:
    """Whether the very first ping is answered, however busy the machine is."""
    return ping(source, address, *options, wait=10)[1] == 0.0


def opened(place: Place, kind: socket.SocketKind, family: int) -> socket.socket:
    """A socket inside a namespace; it stays there whatever thread uses it."""
    made = netns.run_in(place.netns, socket.socket, FAMILIES[family], kind)
    made.settimeout(PATIENCE)
    return made
