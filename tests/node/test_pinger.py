"""Echoes over the loopback interface, on both loops."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from node.errors import NodeError
from node.kernel import netns
from node.loop import LoopKind, run
from node.pinger import READS, Pinger
from overlay.wire.icmp import Echo, echo_reply, parse_echo_untrusted
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import PATIENCE

pytestmark = NEEDS_KERNEL


@pytest.mark.parametrize("kind", list(LoopKind))
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_answered_echo_gives_its_round_trip(kind, address) -> None:
    async def main() -> list[float | None]:
        pinger = Pinger()
        try:
            echoes = (pinger.ping(ip_address(address), PATIENCE) for _ in range(3))
            return await asyncio.gather(*echoes)
        finally:
            pinger.close()

    rtts = run(main, kind)
    assert all(rtt is not None and 0.0 < rtt < PATIENCE for rtt in rtts)


def test_no_answer_is_none_after_the_timeout_and_leaves_nothing_waiting() -> None:
    async def main() -> None:
        pinger = Pinger()
        began = time.monotonic()
        assert await pinger.ping(ip_address("2001:db8::1"), 0.05) is None
        assert await pinger.ping(ip_address("192.0.2.254"), 0.05) is None
        assert time.monotonic() - began < PATIENCE
        pinger.close()

    asyncio.run(main())


@pytest.fixture
def mute() -> Iterator[str]:
    """A namespace that answers no echo by itself."""
    name = f"muslin-test-pinger-{os.getpid()}"
    netns.create(name)
    try:
        netns.run_in(name, silence)
        yield name
    finally:
        netns.delete(name)


def silence() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Path("/proc/sys/net/ipv4/icmp_echo_ignore_all").write_text("1")


def answer_with(forge: Callable[[Echo], Echo], source: str, patience: float = 0.1) -> float | None:
    """Ping where only a forger answers; `forge` turns the request into what comes back."""

    async def main() -> float | None:
        loop = asyncio.get_running_loop()
        ears = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        mouth = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        with ears, mouth:
            mouth.bind((source, 0))

            def reply() -> None:
                request = parse_echo_untrusted(ears.recv(2000))
                if request is not None and request.is_request:
                    mouth.sendto(echo_reply(forge(request))[20:], ("127.0.0.1", 0))

            loop.add_reader(ears.fileno(), reply)
            pinger = Pinger()
            try:
                return await pinger.ping(ip_address("127.0.0.1"), patience)
            finally:
                pinger.close()
                loop.remove_reader(ears.fileno())

    return asyncio.run(main())


FORGERIES: dict[str, Callable[[Echo], Echo]] = {
    "identifier": lambda echo: echo._replace(identifier=echo.identifier ^ 1),
    "sequence": lambda echo: echo._replace(sequence=echo.sequence ^ 1),
    "payload": lambda echo: echo._replace(payload=echo.payload[::-1]),
    "length": lambda echo: echo._replace(payload=echo.payload[:-1]),
}


def test_only_the_exact_answer_from_the_right_address_counts(mute) -> None:
    assert netns.run_in(mute, answer_with, lambda echo: echo, "127.0.0.1", PATIENCE) is not None
    assert netns.run_in(mute, answer_with, lambda echo: echo, "127.0.0.2") is None
    for name, forge in FORGERIES.items():
        assert netns.run_in(mute, answer_with, forge, "127.0.0.1") is None, name


def test_without_permission_it_says_so(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    async def main() -> None:
        pinger = Pinger()
        with pytest.raises(NodeError, match="opening a raw socket: operation not permitted"):
            await pinger.ping(ip_address("127.0.0.1"), 1.0)

    with asyncio.Runner() as runner:
        runner.get_loop()  # a loop needs sockets of its own: made before they are refused
        monkeypatch.setattr("socket.socket", refuse)
        runner.run(main())


class Flooded:
    """A socket that always has another echo reply of somebody else's."""

    def __init__(self) -> None:
        self.reads = 0

    def recvfrom(self, _: int) -> tuple[bytes, tuple[str, int]]:
        self.reads += 1
        if self.reads > 10_000:
            raise AssertionError("the loop has nothing else to do")
        return b"", ("192.0.2.1", 0)


def test_a_flood_of_replies_gives_the_loop_its_turn() -> None:
    async def main() -> int:
        pinger = Pinger()
        pinger._sockets[4] = flooded = Flooded()
        pinger._on_readable(4)
        return flooded.reads

    assert asyncio.run(main()) == READS
