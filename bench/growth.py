"""How the cost grows: with nodes that send at once, with routes, and with lanes.

Three families of labs, each interleaved in itself. All figures are from real daemons:

    senders   1, 4 or 8 of 8 nodes send to the ninth, one TCP stream each
    routes    two nodes exchange; a third one announces as many blocks as make 10, 1,000 or 10,000
              routes in everybody's table
    lanes     two nodes exchange, with 1 or 2 lanes each

How a node comes to announce thousands of blocks: it owns them from the start, as the founder of a
cluster with 8,192 blocks. Its daemon is stopped, its stored state says that they are in use, and it
is started again. From there on everything is as ever: a signed record, gossip, two routes per block
in the other nodes' tables. The nodes that are measured have the ordinary number of kernel routes.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.contestants import Running
from bench.figures import Figure
from bench.parse import Stream, parse_tcp
from bench.report import Json, Table, heading, machine, say
from bench.rounds import ATTEMPTS
from bench.shell import background
from bench.summary import Spread, spread
from bench.topology import muslin_pods
from bench.usage import usage
from bench.workloads import (
    IPERF_PORT,
    LOADED_INTERVAL,
    LOADED_PINGS,
    LOADED_SECONDS,
    SLACK,
    Figures,
    iperf_command,
    iperf_server,
    ping,
    ramp_up,
)
from node.bench.figures import percentile
from node.errors import NodeError
from node.journal import Journal, read_entries
from node.lab.build import lab_down, lab_up
from node.lab.readiness import ask, wait_until
from node.lab.store import LabInfo
from node.lab.verbs import lab_kill, lab_start
from node.state import STATE, StateFolder
from overlay.state import NodeState
from overlay.types import BlockIndex

DESCRIPTION: Final = (
    "How Muslin's cost grows with nodes that send at once, with routes, with lanes."
)

FAMILIES: Final = ("senders", "routes", "lanes")
SENDERS: Final = (1, 4, 8)
ROUTES: Final = (10, 1_000, 10_000)
LANES: Final = (1, 2)

WIDE_CIDR: Final = "10.128.0.0/11"
WIDE_BLOCKS: Final = 1 << (24 - 11)
ROUTES_PER_BLOCK: Final = 2
"""One of each family."""

PATIENCE: Final = 60.0
"""Seconds until all nodes have all routes."""

FIGURES: Final = (
    Figure("gbit", "TCP, all streams together", "Gbit/s"),
    Figure("cpu", "CPU of the daemons that take part", "s/GB", more_is_better=False),
    Figure("rtt-p99", "RTT p99 meanwhile", "ms", more_is_better=False),
)

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Variant:
    """One setup of a family."""

    label: str
    sources: tuple[str, ...]
    """Namespaces of the pods that send, one stream each."""
    sink: str
    target: str
    pids: tuple[int, ...]
    """Daemons of the nodes that take part."""


# -- labs ------------------------------------------------------------------------------------------


@contextmanager
def senders(progress: Progress) -> Iterator[list[Variant]]:
    """One lab; the first node receives, the others send."""
    with _lab("bench-senders", max(SENDERS) + 1) as lab:
        progress(f"{lab.name} is up")
        names = [node.name for node in lab.topology.nodes]
        yield [
            _variant(lab, f"{count} node{'s' * (count > 1)} sending", names[1 : count + 1])
            for count in SENDERS
        ]


@contextmanager
def routes(progress: Progress) -> Iterator[list[Variant]]:
    """A lab for each number of routes, all up at once."""
    with ExitStack() as stack:
        variants = []
        for count in ROUTES:
            lab = stack.enter_context(_lab(f"bench-routes{count}", 3, cidr=WIDE_CIDR))
            announce_many(lab, "node1", count)
            have = [_routes_of(lab, node) for node in ("node2", "node3")]
            progress(f"{lab.name} is up, with {have[0]} and {have[1]} routes")
            variants.append(_variant(lab, f"{have[0]:,} routes", ["node2"], to="node3"))
        yield variants


@contextmanager
def lanes(progress: Progress) -> Iterator[list[Variant]]:
    """A lab for each number of lanes, all up at once; one that does not come up is left out."""
    with ExitStack() as stack:
        variants = []
        for count in LANES:
            name = f"bench-lanes{count}"
            try:
                settings = {"MUSLIN_LANES": str(count)}
                lab = stack.enter_context(_lab(name, 2, settings=settings))
            except NodeError as error:
                progress(f"lanes: {count} left out: {error}")
                continue
            progress(f"{lab.name} is up")
            label = f"{count} lane{'s' * (count > 1)}"
            variants.append(_variant(lab, label, ["node1"], to="node2"))
        yield variants


@contextmanager
def _lab(
    name: str,
    nodes: int,
    *,
    cidr: str = "10.244.0.0/16",
    settings: Mapping[str, str] | None = None,
) -> Iterator[LabInfo]:
    lab = lab_up(name, nodes, 1, cidr=cidr, settings=settings)
    try:
        yield lab
    finally:
        lab_down(name)


def _variant(lab: LabInfo, label: str, names: Sequence[str], to: str = "node1") -> Variant:
    pods = {node.name: node.pods[0] for node in lab.topology.nodes}
    return Variant(
        label=label,
        sources=tuple(pods[name].netns for name in names),
        sink=pods[to].netns,
        target=muslin_pods(lab)[pods[to].name],
        pids=tuple(int(ask(lab, name, "status")["pid"]) for name in (to, *names)),
    )


def announce_many(lab: LabInfo, node: str, count: int) -> None:
    """Let a node that owns the last blocks of the cluster use as many as make `count` routes.

    Raises:
        NodeError: the daemon does not come up again, or the routes do not come in time.
    """
    own = ROUTES_PER_BLOCK * len(lab.topology.nodes)
    lab_kill(lab.name, node, signal.SIGTERM)
    folder = StateFolder(lab.state(node))
    path = folder.path / STATE.name
    state = NodeState.from_entries(read_entries(path))
    more = last_blocks(WIDE_BLOCKS, max(count - own, 0) // ROUTES_PER_BLOCK)
    blocks = (*state.blocks_in_use, *more)
    Journal.create(path, replace(state, blocks_in_use=blocks).entries()).close()
    lab_start(lab.name, node)
    wanted = max(count, own)

    def missing() -> str:
        for each in lab.topology.nodes:
            have = _routes_of(lab, each.name)
            if have < wanted:
                return f"{each.name} has {have} of {wanted} routes"
        return ""

    wait_until(missing, PATIENCE, threading.Event())


def last_blocks(blocks: int, count: int) -> tuple[BlockIndex, ...]:
    """The last `count` of so many blocks; those that join are given the first ones.

    >>> last_blocks(8, 3)
    (5, 6, 7)
    """
    return tuple(BlockIndex(index) for index in range(blocks - count, blocks))


def _routes_of(lab: LabInfo, node: str) -> int:
    return len(ask(lab, node, "get", kind="routes"))


# -- measuring -------------------------------------------------------------------------------------


def measure(variant: Variant, seconds: int) -> Figures:
    """Throughput and CPU of one run, then the round trips of another."""
    before = usage(variant.pids).cpu_seconds
    with _streams(variant, seconds) as clients:
        streams = [_result(client, seconds) for client in clients]
    used = usage(variant.pids).cpu_seconds - before
    with _streams(variant, LOADED_SECONDS) as clients:
        ramp_up(clients[0])
        source = Running(variant.label, variant.sources[0], variant.sink, variant.target)
        times = ping(source, LOADED_PINGS, LOADED_INTERVAL)
    return {
        "gbit": sum(stream.gbit for stream in streams),
        "cpu": used / (sum(stream.bytes for stream in streams) / 1e9),
        "rtt-p99": percentile(times, 0.99),
    }


@contextmanager
def _streams(variant: Variant, seconds: int) -> Iterator[list[subprocess.Popen[str]]]:
    """A stream from each source, all at once, to a server of its own."""
    with ExitStack() as stack:
        ports = range(IPERF_PORT, IPERF_PORT + len(variant.sources))
        for port in ports:
            stack.enter_context(iperf_server(variant.sink, port))
        yield [
            stack.enter_context(
                background(source, *iperf_command(variant.target, seconds, port=port))
            )
            for source, port in zip(variant.sources, ports, strict=True)
        ]


def _result(client: subprocess.Popen[str], seconds: int) -> Stream:
    try:
        said, _ = client.communicate(timeout=seconds + SLACK)
    except subprocess.TimeoutExpired as error:
        raise NodeError("iperf3 did not end", code="timeout") from error
    return parse_tcp(said)


def run_family(
    variants: Sequence[Variant], rounds: int, seconds: int, progress: Progress
) -> dict[str, list[Figures]]:
    """All variants once per round; what each gave, by its label."""
    seen: dict[str, list[Figures]] = {variant.label: [] for variant in variants}
    for number in range(1, rounds + 1):
        for variant in variants:
            for _ in range(ATTEMPTS):
                try:
                    figures = measure(variant, seconds)
                except NodeError as error:
                    progress(f"{variant.label}: {error.why}")
                    continue
                seen[variant.label].append(figures)
                progress(
                    f"round {number}/{rounds}  {variant.label:16} {figures['gbit']:.2f} Gbit/s"
                )
                break
    return seen


# -- the command -----------------------------------------------------------------------------------


def add_options(parser: ArgumentParser) -> None:
    """The options of `scripts/bench growth`."""
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--seconds", type=int, default=2, help="per measurement (default 2)")
    parser.add_argument(
        "--only", choices=FAMILIES, action="append", help="one of the families; may be repeated"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")


def growth(options: Namespace) -> None:
    """Do what the options say.

    Raises:
        NodeError: a lab does not come up, or an option is wrong.
    """
    if options.rounds < 1 or options.seconds < 1:
        raise NodeError("--rounds and --seconds must be at least 1")
    families = {"senders": senders, "routes": routes, "lanes": lanes}
    seen: dict[str, list[Figures]] = {}
    for name in options.only or FAMILIES:
        with families[name](say) as variants:
            seen |= run_family(variants, options.rounds, options.seconds, say)
    on = machine()
    if options.json is not None:
        found: Json = {"machine": on, "seconds": options.seconds, "samples": seen}
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    table = tabulate(seen)
    print(heading(on, options.rounds, options.seconds) + ".\n")
    print(table.markdown() if options.markdown else table.text())


def tabulate(seen: Mapping[str, Sequence[Figures]]) -> Table:
    """A row per variant; medians with their spread."""
    head = ["median (lowest to highest)", *(f"{each.title}, {each.unit}" for each in FIGURES)]
    rows = [
        [label, *(_cell(each, spread([one[each.key] for one in found])) for each in FIGURES)]
        for label, found in seen.items()
    ]
    return Table("Growth", head, rows)


def _cell(figure: Figure, cell: Spread | None) -> str:
    if cell is None:
        return "-"
    low, high = figure.show(cell.lowest), figure.show(cell.highest)
    return f"{figure.show(cell.median)} ({low} to {high})"
