"""Asking for a measurement and serving one: repeated, refused, one at a time, and nothing left."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from node.bench.speech import COMMAND, GREETING, Lines
from node.control import benches
from node.control.handlers import Handlers
from node.control.schema import ControlError
from node.loop import LoopKind
from node.loop import run as run_loop
from overlay.effects import BenchAnswered, BenchAsked, BenchEnded
from overlay.types import Endpoint
from overlay.wire.messages import BenchDone, BenchReady, BenchRequest, Refusal
from tests.support.daemon import FACTS, NODE2, FakeDaemon, node_view, pod_view, snapshot

HERE = ip_address("127.0.0.1")
"""Both ends are on this machine; loopback plays the pod network and the underlay."""


@pytest.fixture
def daemon(monkeypatch) -> FakeDaemon:
    made = FakeDaemon()
    far = node_view(2, address=HERE, endpoint=Endpoint("127.0.0.1", 1))
    made.engine.shot = snapshot(
        address=HERE,
        nodes=(node_view(1, address=HERE), far),
        pods=(replace(pod_view("web", 1), netns="/run/netns/nobodys"), pod_view("db", 2)),
        sessions=(),
    )
    monkeypatch.setattr(made, "facts", lambda: replace(FACTS, pid=os.getpid()))
    monkeypatch.setattr(benches, "START_PATIENCE", 30.0)
    return made


@pytest.fixture(params=list(LoopKind))
def doing(request, daemon) -> Callable[..., None]:
    """Runs a test's coroutine with handlers, on either kind of loop."""

    def run(main: Callable[[Handlers], Awaitable[None]]) -> None:
        async def with_handlers() -> None:
            daemon.handlers = handlers = Handlers(daemon)
            async with asyncio.timeout(60):
                await main(handlers)

        run_loop(with_handlers, request.param)

    return run


def asked(request: int = 5, address: str = "127.0.0.1", seconds: int = 30) -> BenchAsked:
    beside = ip_address("127.0.0.1").packed
    return BenchAsked(NODE2, request, ip_address(address).packed, beside, seconds)


async def said(daemon: FakeDaemon, kind: type) -> object:
    """The next message of a kind that the daemon says; it is taken out."""
    while True:
        for entry in daemon.engine.said:
            if isinstance(entry[1], kind):
                daemon.engine.said.remove(entry)
                assert entry[0] == NODE2
                return entry[1]
        await asyncio.sleep(0.01)


async def refused(daemon: FakeDaemon) -> str:
    refusal = await said(daemon, Refusal)
    assert isinstance(refusal, Refusal)
    return refusal.code


# -- serving ---------------------------------------------------------------------------------------


def test_a_member_that_asks_gets_ports_that_serve_it_and_nothing_is_left(daemon, doing) -> None:
    async def main(handlers: Handlers) -> None:
        handlers.benches.on_effect(asked())
        ready = await said(daemon, BenchReady)
        assert isinstance(ready, BenchReady)
        assert ready.request == 5
        with socket.create_connection(("127.0.0.1", ready.port), 30) as commands:
            commands.sendall(GREETING.pack(ready.token[:16], COMMAND, 0))
            Lines(commands).send({"do": "datagrams"})
            assert Lines(commands).receive() == {"overlay": 0, "underlay": 0}
        assert ready.underlay_port > 0
        assert await said(daemon, BenchDone) == BenchDone(5)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", ready.port), 30)

    doing(main)


def test_a_question_that_is_repeated_gets_the_same_answer(daemon, doing) -> None:
    async def main(handlers: Handlers) -> None:
        for _ in range(3):
            handlers.benches.on_effect(asked())
        ready = await said(daemon, BenchReady)
        handlers.benches.on_effect(asked())
        assert await said(daemon, BenchReady) == ready
        await handlers.benches.close()
        assert await said(daemon, BenchDone) == BenchDone(5)
        assert daemon.engine.said == []

    doing(main)


def test_the_asker_ends_it(daemon, doing) -> None:
    async def main(handlers: Handlers) -> None:
        handlers.benches.on_effect(asked())
        ready = await said(daemon, BenchReady)
        assert isinstance(ready, BenchReady)
        handlers.benches.on_effect(BenchEnded(NODE2, 4))  # another one
        handlers.benches.on_effect(BenchEnded(NODE2, 5))
        await said(daemon, BenchDone)
        handlers.benches.on_effect(asked(6))
        assert isinstance(await said(daemon, BenchReady), BenchReady)
        await handlers.benches.close()

    doing(main)


def test_its_time_ends_it(daemon, doing, monkeypatch) -> None:
    monkeypatch.setattr(benches, "MARGIN", -0.9)

    async def main(handlers: Handlers) -> None:
        handlers.benches.on_effect(asked(seconds=1))
        await said(daemon, BenchReady)
        await said(daemon, BenchDone)

    doing(main)


def test_a_second_one_is_refused_and_the_first_goes_on(daemon, doing) -> None:
    async def main(handlers: Handlers) -> None:
        handlers.benches.on_effect(asked(5))
        handlers.benches.on_effect(asked(6))
        refusal = await said(daemon, Refusal)
        text = "a measurement from node2 is under way"
        assert refusal == Refusal(6, "bench-busy", text)
        with pytest.raises(ControlError, match=text):
            await handlers.dispatch("bench.open", {"request": 9, "target": "node2"})
        await said(daemon, BenchReady)
        await handlers.benches.close()

    doing(main)


def test_a_node_may_be_set_not_to_serve(daemon, doing) -> None:
    daemon.serving = False

    async def main(handlers: Handlers) -> None:
        handlers.benches.on_effect(asked())
        assert await refused(daemon) == "bench-off"

    doing(main)


@pytest.mark.parametrize("address", ["10.244.1.2", "10.244.0.77", "0.0.0.0", "fd00::7"])
def test_an_address_of_somebody_else_is_refused(daemon, doing, address) -> None:
    async def main(handlers: Handlers) -> None:
        handlers.benches.on_effect(asked(address=address))
        assert await refused(daemon) == "bench-no-address"

    doing(main)


def test_a_far_end_that_cannot_start_is_refused_and_not_left_busy(daemon, doing) -> None:
    async def main(handlers: Handlers) -> None:
        for request in (5, 6):
            handlers.benches.on_effect(asked(request, "10.244.0.2"))  # its namespace is not there
            assert await refused(daemon) == "bench-failed"

    doing(main)


def test_no_address_is_listened_at_that_means_all() -> None:
    assert benches._usable(ip_address("0.0.0.0")) == ""
    assert benches._usable(ip_address("ff02::1")) == ""
    assert benches._usable(ip_address("192.0.2.1")) == "192.0.2.1"


# -- asking ----------------------------------------------------------------------------------------


def test_an_offer_has_what_the_near_end_needs_and_release_tells_the_other_end(
    daemon, doing
) -> None:
    async def main(handlers: Handlers) -> None:
        daemon.engine.answer = BenchAnswered(NODE2, 9, b"t" * 32, 40000, 40001)
        offer = await handlers.dispatch("bench.open", {"request": 9, "target": "db", "seconds": 5})
        assert offer == {
            "target": "node2/db",
            "kind": "pod",
            "node": "node2",
            "address": "10.244.1.2",
            "path": "direct",
            "state": "ready",
            "request": 9,
            "port": 40000,
            "underlay": "127.0.0.1",
            "underlay_port": 40001,
            "token": "74" * 32,
            "daemon": os.getpid(),
        }
        question = await said(daemon, BenchRequest)
        assert question == BenchRequest(9, ip_address("10.244.1.2").packed, HERE.packed, 5)
        handlers.benches.on_effect(asked(1))
        assert await refused(daemon) == "bench-busy"  # who asks does not serve
        await handlers.dispatch("bench.close", {"request": 8})
        assert daemon.engine.said == []
        await handlers.dispatch("bench.close", {"request": 9})
        assert await said(daemon, BenchDone) == BenchDone(9)
        daemon.engine.answer = None

    doing(main)


def test_the_far_end_ends_it_and_the_time_does(daemon, doing, monkeypatch) -> None:
    async def main(handlers: Handlers) -> None:
        for request in (1, 2, 3):
            daemon.engine.answer = BenchAnswered(NODE2, request, b"t" * 32, 1, 2)
            await handlers.dispatch("bench.open", {"request": request, "target": "db"})
            daemon.engine.answer = None
            if request == 1:
                handlers.benches.on_effect(BenchEnded(NODE2, request))
                await asyncio.sleep(0)
            else:
                monkeypatch.setattr(daemon, "now", lambda at=request: 1000.0 * at)

    doing(main)


def test_a_question_is_repeated_until_its_own_answer_comes(daemon, doing, monkeypatch) -> None:
    monkeypatch.setattr(benches, "REPEAT", 0.01)

    async def main(handlers: Handlers) -> None:
        params = {"request": 9, "target": "db"}
        opening = asyncio.ensure_future(handlers.dispatch("bench.open", params))
        first = await said(daemon, BenchRequest)
        handlers.benches.on_effect(BenchAnswered(NODE2, 8, b"t" * 32, 1, 2))  # to an older one
        assert await said(daemon, BenchRequest) == first
        assert not opening.done()
        handlers.benches.on_effect(BenchAnswered(NODE2, 9, b"t" * 32, 3, 4))
        assert (await opening)["port"] == 3

    doing(main)


@pytest.mark.parametrize(
    ("lose_probes", "code", "why"),
    [(True, "no-answer", "does not answer"), (False, "too-old", "its version")],
)
def test_silence_is_told_from_a_version_that_does_not_know_the_question(
    daemon, doing, monkeypatch, lose_probes, code, why
) -> None:
    monkeypatch.setattr(benches, "ANSWER_PATIENCE", 0.05)
    monkeypatch.setattr("node.control.handlers.PING_TIMEOUT", 0.05)
    daemon.lose_probes = lose_probes

    async def main(handlers: Handlers) -> None:
        for _ in range(2):  # and the node is free again
            with pytest.raises(ControlError, match=why) as caught:
                await handlers.dispatch("bench.open", {"request": 9, "target": "db"})
            assert caught.value.code == code

    doing(main)


@pytest.mark.parametrize(
    "params",
    [
        {"target": "db"},
        {"request": -1, "target": "db"},
        {"request": True, "target": "db"},
        {"request": 1},
        {"request": 1, "target": "db", "seconds": 0},
        {"request": 1, "target": "db", "seconds": 1e9},
    ],
)
def test_a_wrong_request_says_nothing_to_anyone(daemon, doing, params) -> None:
    async def main(handlers: Handlers) -> None:
        with pytest.raises(ControlError) as caught:
            await handlers.dispatch("bench.open", params)
        assert caught.value.code == "bad-request"
        assert daemon.engine.said == []

    doing(main)
