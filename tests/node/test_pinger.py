"""Echoes over the loopback interface, on both loops."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address

import pytest

from node.errors import NodeError
from node.loop import LoopKind, run
from node.pinger import Pinger
from tests.support.privileged import NEEDS_KERNEL

pytestmark = NEEDS_KERNEL


@pytest.mark.parametrize("kind", list(LoopKind))
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_answered_echo_gives_its_round_trip(kind, address) -> None:
    async def main() -> list[float | None]:
        pinger = Pinger()
        try:
            echoes = (pinger.ping(ip_address(address), 2.0) for _ in range(3))
            return await asyncio.gather(*echoes)
        finally:
            pinger.close()

    rtts = run(main, kind)
    assert all(rtt is not None and 0.0 < rtt < 1.0 for rtt in rtts)


def test_no_answer_is_none_after_the_timeout_and_leaves_nothing_waiting() -> None:
    async def main() -> None:
        pinger = Pinger()
        began = time.monotonic()
        assert await pinger.ping(ip_address("2001:db8::1"), 0.05) is None
        assert await pinger.ping(ip_address("192.0.2.254"), 0.05) is None
        assert time.monotonic() - began < 1.0
        pinger.close()

    asyncio.run(main())


def test_another_programs_echo_is_not_taken_for_ours() -> None:
    async def main() -> None:
        mine, other = Pinger(), Pinger()
        waits = [pinger.ping(ip_address("127.0.0.1"), 1.0) for pinger in (mine, other)]
        assert None not in await asyncio.gather(*waits)
        mine.close()
        other.close()

    asyncio.run(main())


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
