"""What is done to every contestant. Each workload returns some of `bench.figures`.

Everything runs as shipped: iperf3 and ping with their defaults, the congestion control that the
kernel has. A ping that waits less than a clock tick of the kernel spins instead of sleeping; at the
intervals used here it does so for all contestants alike, and yields to whoever wants to run.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from bench.contestants import Running
from bench.parse import Datagrams, Stream, parse_ping, parse_tcp, parse_udp
from bench.search import TRIES, highest_rate
from bench.shell import background, run
from bench.topology import Ground, Underlay
from bench.usage import usage
from node import children
from node.bench.figures import percentile
from node.errors import NodeError

IPERF_PORT: Final = 5201
CONNECTIONS_PORT: Final = 5300
WORKERS: Final = 4

START: Final = 0.35
"""Seconds that starting a measurement costs beside its own time; for the estimate."""

UDP_SECONDS: Final = 1
"""Of one try in a search."""

IDLE_PINGS: Final = 600
IDLE_INTERVAL: Final = 0.002
LOADED_PINGS: Final = 600
LOADED_INTERVAL: Final = 0.005
RAMP: Final = 0.5
"""Seconds that a load may take to rise before pings are counted."""
LOADED_SECONDS: Final = int(LOADED_PINGS * LOADED_INTERVAL + RAMP) + 1
"""That a load lasts; longer than the pings."""

BEYOND: Final = 1.3
"""A search starts at this multiple of what arrived when overloaded: surely too much, mostly."""

SLACK: Final = 20.0
"""Seconds that a command may take beyond its own time."""

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Scene:
    """One contestant at its turn."""

    ground: Ground
    running: Running
    others: tuple[int, ...] = ()
    """Daemons of all other contestants; they should be idle."""
    seconds: int = 2
    """Of one measurement."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One thing to measure."""

    name: str
    title: str
    measure: Callable[[Scene], Figures]
    cost: Callable[[int], float] = field(default=lambda seconds: seconds + START)
    """Seconds it takes, roughly, when measurements take so many."""
    underlays: frozenset[Underlay] = frozenset({Underlay.VETH})
    """Where it runs unless somebody chooses."""


# -- TCP -------------------------------------------------------------------------------------------


def tcp1(scene: Scene) -> Figures:
    """One stream, and what the daemons used for it."""
    running = scene.running
    before, others = usage(running.pids), usage(scene.others)
    bytes_before, frames_before = scene.ground.wire_counters()
    stream = tcp(running, scene.seconds)
    bytes_after, frames_after = scene.ground.wire_counters()
    figures = {
        "tcp1": stream.gbit,
        "frame": (bytes_after - bytes_before) / max(frames_after - frames_before, 1),
        "others-cpu": (usage(scene.others).cpu_seconds - others.cpu_seconds) / scene.seconds,
    }
    if running.pids:
        used = usage(running.pids).cpu_seconds - before.cpu_seconds
        figures["cpu"] = used / (stream.bytes / 1e9)
    return figures


def tcp8(scene: Scene) -> Figures:
    """Eight streams."""
    return {"tcp8": tcp(scene.running, scene.seconds, "-P", "8").gbit}


def tcp_both(scene: Scene) -> Figures:
    """One stream in each direction."""
    return {"tcp-both": tcp(scene.running, scene.seconds, "--bidir").gbit}


def tcp(running: Running, seconds: int, *options: str) -> Stream:
    """What one iperf3 client gets through."""
    with iperf_server(running.sink):
        return parse_tcp(_client(running, seconds, *options))


# -- UDP -------------------------------------------------------------------------------------------


def udp1300(scene: Scene) -> Figures:
    """Datagrams of an ordinary size."""
    return _udp(scene, "udp1300", 1300)


def udp64(scene: Scene) -> Figures:
    """Small datagrams: what one packet costs."""
    return _udp(scene, "udp64", 64)


def _udp(scene: Scene, key: str, size: int) -> Figures:
    overload = _datagrams(scene.running, size, 0)
    if not overload.delivered:
        raise NodeError("no datagram arrived")
    best = highest_rate(
        lambda rate: _datagrams(scene.running, size, rate), BEYOND * overload.delivered
    )
    return {f"{key}-over": overload.delivered / 1e3, key: best / 1e3}


def _datagrams(running: Running, size: int, rate: float) -> Datagrams:
    """What arrives of `rate` datagrams per second; 0: as many as the sender can make."""
    options = ("-u", "-l", str(size), "-b", str(int(rate * size * 8)))
    with iperf_server(running.sink):
        return parse_udp(_client(running, UDP_SECONDS, *options))


# -- ping ------------------------------------------------------------------------------------------


def rtt_idle(scene: Scene) -> Figures:
    """Round trips with nothing else on the way."""
    return _percentiles("rtt", ping(scene.running, IDLE_PINGS, IDLE_INTERVAL))


def rtt_loaded(scene: Scene, streams: int) -> Figures:
    """Round trips while TCP streams run in the same direction."""
    command = iperf_command(scene.running.target, LOADED_SECONDS, "-P", str(streams))
    with iperf_server(scene.running.sink), background(scene.running.source, *command) as load:
        ramp_up(load)
        return _percentiles(f"rtt{streams}", ping(scene.running, LOADED_PINGS, LOADED_INTERVAL))


def ramp_up(load: subprocess.Popen[str]) -> None:
    """Wait until a load that was just started has risen.

    Raises:
        NodeError: it has ended instead. Nothing else.
    """
    try:
        load.wait(RAMP)
    except subprocess.TimeoutExpired:
        return
    raise NodeError("the load ended before the pings began")


def ping(running: Running, count: int, interval: float) -> tuple[float, ...]:
    """Milliseconds of every answer."""
    argv = ["ping", "-n", "-c", str(count), "-i", str(interval), running.target]
    # Exit code 1 says that some were lost; those that came back are figures all the same.
    with background(running.source, *argv) as process:
        try:
            said, _ = process.communicate(timeout=count * interval + SLACK)
        except subprocess.TimeoutExpired as error:
            raise NodeError("ping did not end", code="timeout") from error
    return parse_ping(said).milliseconds


def _percentiles(key: str, milliseconds: Sequence[float]) -> Figures:
    return {
        f"{key}-p50": percentile(milliseconds, 0.5),
        f"{key}-p99": percentile(milliseconds, 0.99),
    }


# -- connections and memory ------------------------------------------------------------------------


def connections(scene: Scene) -> Figures:
    """Connections per second, by `bench.connections`."""
    running = scene.running
    ours = children.command("bench.connections")
    variables = children.environment()
    with background(
        running.sink, *ours, "serve", str(CONNECTIONS_PORT), variables=variables
    ) as server:
        assert server.stdout is not None
        if "ready" not in server.stdout.readline():
            raise NodeError("the server for connections did not start")
        argv = [*ours, "connect", running.target, str(CONNECTIONS_PORT)]
        argv += [str(scene.seconds), str(WORKERS)]
        said = run(running.source, *argv, patience=scene.seconds + SLACK, variables=variables)
    result = json.loads(said)
    if not result["done"]:
        raise NodeError("no connection came about")
    return {"connections": result["done"] / result["seconds"]}


def memory(scene: Scene) -> Figures:
    """Of the daemons, after everything else."""
    if not scene.running.pids:
        return {}
    used = usage(scene.running.pids)
    return {"rss": used.rss / 1e6, "rss-peak": used.rss_peak / 1e6}


# -- iperf3 ----------------------------------------------------------------------------------------


@contextmanager
def iperf_server(netns: str, port: int = IPERF_PORT) -> Iterator[None]:
    """A server for one measurement, that listens already."""
    with background(netns, "iperf3", "-s", "-1", "--forceflush", "-p", str(port)) as server:
        assert server.stdout is not None
        for line in server.stdout:
            if "Server listening" in line:
                break
        else:
            raise NodeError("the iperf3 server did not start")
        yield


def _client(running: Running, seconds: int, *options: str) -> str:
    argv = iperf_command(running.target, seconds, *options)
    return run(running.source, *argv, patience=seconds + SLACK)


def iperf_command(target: str, seconds: int, *options: str, port: int = IPERF_PORT) -> list[str]:
    """A client that says in JSON what it did."""
    return ["iperf3", "-J", "-c", target, "-p", str(port), "-t", str(seconds), *options]


def _of_search(_: int) -> float:
    return (TRIES + 1) * (UDP_SECONDS + START)


def _of_pings(_: int) -> float:
    return LOADED_PINGS * LOADED_INTERVAL + RAMP + START


_BOTH: Final = frozenset(Underlay)

WORKLOADS: Final = (
    Workload("tcp1", "TCP, one stream", tcp1, underlays=_BOTH),
    Workload("tcp8", "TCP, eight streams", tcp8),
    Workload("tcp-both", "TCP, both directions at once", tcp_both),
    Workload("udp1300", "UDP, 1300 bytes", udp1300, _of_search),
    Workload("udp64", "UDP, 64 bytes", udp64, _of_search, _BOTH),
    Workload("rtt", "RTT, idle", rtt_idle, lambda _: IDLE_PINGS * IDLE_INTERVAL + START, _BOTH),
    Workload("rtt1", "RTT under 1 TCP stream", lambda scene: rtt_loaded(scene, 1), _of_pings),
    Workload("rtt8", "RTT under 8 TCP streams", lambda scene: rtt_loaded(scene, 8), _of_pings),
    Workload("connections", "TCP connections per second", connections),
    Workload("memory", "memory of the daemons", memory, lambda _: 0.0),
)

BY_NAME: Final[Mapping[str, Workload]] = {workload.name: workload for workload in WORKLOADS}
