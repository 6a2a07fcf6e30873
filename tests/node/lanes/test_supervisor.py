"""The supervisor: starts, feeds, replaces, and ends processes. The processes are real, and small.

What is started here instead of `node.lanes.worker` is a script that does as the test says.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node import children
from node.config import NodeConfig
from node.errors import NodeError
from node.lanes import supervisor
from node.lanes.supervisor import Supervisor, check_ports
from overlay.effects import TellDaemon, TellLane
from overlay.lanes.messages import Ready, encode
from overlay.types import NodeId

PATIENCE = 20.0
LOCAL = NodeId(b"n" * 32)

SCRIPT = """
import os, signal, socket, sys
from node.lanes.setup import ASK, LaneSetup
from overlay.lanes.messages import Failed, Ready, Stats, encode
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pipe = socket.socket(fileno=int(sys.argv[1]))
setup = LaneSetup.decode(pipe.recv(1 << 16))
tell = lambda report: pipe.send(encode(report))
{body}
"""

GOOD = """
tell(Ready())
while message := pipe.recv(1 << 16):
    if message == ASK:
        tell(Stats(5, 5, 0, [], 1.25))
    elif message == b"die":
        os._exit(3)
    else:
        tell(Failed(f"told {message!r} on port {setup.port}"))
        break
"""


class Bench:
    """A supervisor whose processes run a script, inside a loop."""

    def __init__(self, body: str, lanes: int) -> None:
        self.reports: list[tuple[int, bytes | None]] = []
        self.crashes: list[object] = []
        self._script = SCRIPT.replace("{body}", body)
        self.started = 0
        config = replace(NodeConfig(), lanes=lanes)
        self.supervisor = Supervisor(
            config,
            LOCAL,
            port=7000,
            udp=0,
            offloads=("udp_gso", "tso"),
            on_lane=lambda lane, report: self.reports.append((lane, report)),
            on_crash=lambda name, error: self.crashes.append((name, error)),
        )

    def spawn(self, pipe: int) -> subprocess.Popen[bytes]:
        self.started += 1
        return subprocess.Popen(
            [sys.executable, "-c", self._script, str(pipe)],
            env=children.environment(),
            pass_fds=(pipe,),
        )

    def lane(self, lane: int) -> Any:
        return self.supervisor.facts()[lane]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds():  # noqa: ASYNC110 - processes have no event to wait for
                await asyncio.sleep(0.01)


def on_a_loop(
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    test: Callable[[Bench], Awaitable[None]],
    lanes: int = 2,
) -> None:
    async def run() -> None:
        bench = Bench(body, lanes)
        monkeypatch.setattr(bench.supervisor, "_spawn", bench.spawn)
        try:
            await test(bench)
        finally:
            pids = [lane.pid for lane in bench.supervisor.facts()[1:] if lane.pid]
            await bench.supervisor.close()
        assert bench.crashes == []
        left.extend(pids)

    left: list[int] = []
    asyncio.run(run())
    assert not any(Path(f"/proc/{pid}").exists() for pid in left)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(supervisor, "FRESH_WITHIN", PATIENCE)


def test_with_one_lane_there_is_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(bench: Bench) -> None:
        (own,) = bench.supervisor.facts()
        assert (own.lane, own.pid, own.port, own.state) == (0, os.getpid(), 7000, "up")
        assert bench.supervisor.problems() == ()
        await bench.supervisor.refresh()
        assert bench.started == 0

    on_a_loop(monkeypatch, GOOD, test, lanes=1)


def test_every_other_lane_is_a_process_with_the_next_port(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(bench: Bench) -> None:
        await bench.until(lambda: all(one.state == "up" for one in bench.supervisor.facts()))
        assert [one.port for one in bench.supervisor.facts()] == [7000, 7001, 7002]
        assert len({one.pid for one in bench.supervisor.facts()}) == 3
        await bench.supervisor.refresh()
        assert [one.cpu_seconds for one in bench.supervisor.facts()[1:]] == [1.25, 1.25]

    on_a_loop(monkeypatch, GOOD, test, lanes=3)


def test_orders_reach_their_lane_and_reports_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(bench: Bench) -> None:
        await bench.until(lambda: bench.lane(1).state == "up")
        bench.supervisor.tell(TellLane(9, b"nobody"))
        bench.supervisor.tell(TellDaemon(b"nobody"))
        bench.supervisor.tell(TellLane(1, b"order"))
        lane = bench.supervisor._lanes[1]
        await bench.until(lambda: lane.state == "waiting")
        assert lane.why == "told b'order' on port 7001"
        assert bench.reports[0] == (1, encode(Ready()))
        assert bench.reports[-1] == (1, None)

    monkeypatch.setattr(supervisor, "FIRST_WAIT", PATIENCE)
    on_a_loop(monkeypatch, GOOD, test)


@pytest.mark.parametrize("answered", [True, False])
def test_processes_retire_when_peers_know_or_do_not_answer_and_begin_again(
    monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    monkeypatch.setattr(supervisor, "TOLD_WITHIN", PATIENCE if answered else 0.02)

    async def test(bench: Bench) -> None:
        await bench.until(lambda: bench.lane(1).state == "up")
        before = bench.lane(1).pid
        told = asyncio.Event()
        retiring = asyncio.ensure_future(bench.supervisor.retire(told.is_set))
        if answered:
            await bench.until(lambda: retiring.done() or bench.lane(1).state == "up")
            assert (1, None) not in bench.reports
            told.set()
        await retiring
        assert bench.reports[-1] == (1, None)
        assert bench.lane(1).pid is None
        bench.supervisor.begin()
        await bench.until(lambda: bench.lane(1).state == "up")
        assert bench.lane(1).pid != before
        assert bench.started == 2

    on_a_loop(monkeypatch, GOOD, test)


def test_a_process_that_ended_is_replaced_and_the_other_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(bench: Bench) -> None:
        await bench.until(lambda: all(one.state == "up" for one in bench.supervisor.facts()))
        await bench.supervisor.refresh()
        before = [one.pid for one in bench.supervisor.facts()]
        os.kill(before[1], signal.SIGKILL)
        await bench.until(lambda: bench.lane(1).restarts == 1 and bench.lane(1).state == "up")
        after = [one.pid for one in bench.supervisor.facts()]
        assert [was == now for was, now in zip(before, after, strict=True)] == [True, False, True]
        assert [report for report in bench.reports if report[1] is None] == [(1, None)]
        assert bench.lane(1).cpu_seconds == 1.25, "what the one before used stays in the sum"

    on_a_loop(monkeypatch, GOOD, test, lanes=3)


def test_a_lane_that_keeps_ending_is_a_problem_with_its_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(bench: Bench) -> None:
        await bench.until(lambda: bool(bench.supervisor.problems()) and bench.started > 3)
        (problem,) = bench.supervisor.problems()
        assert problem.code == "lane-ends"
        assert "lane 1 does not keep running" in problem.what
        await bench.until(lambda: bench.supervisor._lanes[1].why == "no luck")

    on_a_loop(monkeypatch, 'tell(Failed("no luck"))', test)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("os._exit(3)", "its process ended with exit code 3"),
        ("os.kill(os.getpid(), 9)", "its process was ended by signal 9"),
        ("pipe.send(b'nonsense')\npipe.recv(9)", "what it says cannot be read"),
    ],
)
def test_the_cause_of_an_end_is_found_out(
    monkeypatch: pytest.MonkeyPatch, body: str, why: str
) -> None:
    async def test(bench: Bench) -> None:
        lane = bench.supervisor._lanes[1]
        await bench.until(lambda: lane.state == "waiting" and lane.why.startswith(why))

    monkeypatch.setattr(supervisor, "FIRST_WAIT", 0.3)
    on_a_loop(monkeypatch, body, test)


def test_waits_between_tries_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        if sys._getframe(1).f_code.co_name == "_keep":
            waits.append(seconds)
            seconds = 0.0
        await real(seconds)

    monkeypatch.setattr(supervisor, "FIRST_WAIT", 1.0)
    monkeypatch.setattr(supervisor.asyncio, "sleep", sleep)

    async def test(bench: Bench) -> None:
        monkeypatch.setattr(bench.supervisor, "_spawn", _refused)
        await bench.until(lambda: len(waits) >= 8)

    on_a_loop(monkeypatch, "", test)
    assert waits[:8] == [1, 2, 4, 8, 16, 30, 30, 30]


def _refused(_pipe: int) -> subprocess.Popen[bytes]:
    raise OSError(12, "Cannot allocate memory")


def test_a_process_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(bench: Bench) -> None:
        # It talks when it is asked, and nobody asks.
        lane = bench.supervisor._lanes[1]
        await bench.until(lambda: lane.state == "waiting")
        assert lane.why == "it said nothing for 3 s"

    monkeypatch.setattr(supervisor, "SILENT_LOOKS", 3)
    monkeypatch.setattr(supervisor, "LOOK_INTERVAL", 0.05)
    monkeypatch.setattr(supervisor, "FIRST_WAIT", PATIENCE)
    on_a_loop(monkeypatch, GOOD, test)


def test_a_process_that_does_not_end_is_killed_when_the_daemon_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(bench: Bench) -> None:
        await bench.until(lambda: bench.lane(1).state == "up")

    monkeypatch.setattr(supervisor, "END_PATIENCE", 0.1)
    on_a_loop(monkeypatch, "tell(Ready())\nsignal.pause()", test)


def test_lanes_need_ports_behind_the_daemons() -> None:
    check_ports(65535, 1)
    check_ports(65520, 16)
    with pytest.raises(NodeError, match="only 15 are left"):
        check_ports(65521, 16)
