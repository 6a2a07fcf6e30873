"""How a whole simulated cluster behaves as it grows: join, traffic, news, deaths, slow nodes.

Each number of nodes is measured in a process of its own, in which one world goes through all phases
(`bench.crowd`), so that memory is what that world needs. Times are virtual unless they say
otherwise. What depends on the machine is CPU, wall time and memory.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final, NamedTuple, cast

from bench.counts import counts
from bench.crowd import LOSSES, REST, Crowd
from bench.members import Founded, measure
from bench.report import NOTHING, Json, Table, machine, say
from bench.starved import starved
from node.errors import NodeError

DESCRIPTION: Final = """\
A simulated cluster on a LAN: how fast it agrees, what it sends, who is declared dead by mistake.

Time and memory grow at least with the square of the nodes. A thousand need some GB; three thousand,
by extrapolation, nine times as much."""

NODES: Final = "10,100,1000"
SLOW_NODES: Final = 100
SLOW_SEEDS: Final = 2

PHASES: Final = ("join", "traffic", "route", "death", "slow")
"""In this order. All but the last happen in one world, and begin with the join."""

ALLOCATOR: Final = {"MALLOC_MMAP_THRESHOLD_": "60000"}
"""glibc gives large blocks back to the system instead of keeping them in its heap."""

JUDGED_FROM: Final = 100
"""Nodes from which on the targets count; in smaller clusters nothing is divided by much."""

Found = dict[str, float]
"""Figures of one number of nodes, by their key."""


class Row(NamedTuple):
    """One figure in the table."""

    key: str
    title: str
    show: Callable[[float], str]
    most: float | None = None
    """The target: no more than that."""


def _seconds(value: float) -> str:
    return f"{value:.2f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _news() -> Iterator[Row]:
    for loss in LOSSES:
        at, title = f"route-{loss:g}", f"new record, {loss:.0%} loss"
        # 15 rounds of 0.1 s (`offer_interval`), which is less than the 3 s that are wanted as well;
        # with heavy loss one comparison of stores (`gossip_interval`).
        most = 1.5 if loss <= 0.05 else 1.0
        yield Row(f"{at}-p50", f"{title}: p50, s", _seconds)
        yield Row(f"{at}-p99", f"{title}: p99, s", _seconds, most)
        yield Row(f"{at}-longest", f"{title}: max, s", _seconds)


ROWS: Final = (
    Row("join-seconds", "mass join, s", _seconds, 30.0),
    Row("traffic-early", "10 s after the join, bytes/s sent per node", _count, 5_000.0),
    Row("traffic-bytes", "at rest, bytes/s sent per node", _count, 5_000.0),
    Row("traffic-messages", "at rest, datagrams/s sent per node", lambda value: f"{value:.1f}"),
    Row("traffic-busiest", "at rest, most bytes of a node in a second", _count),
    Row("traffic-cpu", "at rest, ms of CPU per node and s", lambda value: f"{value * 1e3:.2f}"),
    *_news(),
    Row("death-suspected", "30 % die: all suspected by all, s", _seconds),
    Row("death-first", "30 % die: the first knows all dead, s", _seconds),
    Row("death-noticed", "30 % die: everybody knows all dead, s", _seconds, 30.0),
    Row("death-false_subjects", "30 % die: live nodes declared dead", _count, 0.0),
    Row("join-memory", "process memory per (node, record), bytes", _count, 2_000.0),
    Row("members-memory", "one engine alone, bytes per member", _count, 2_000.0),
    Row("join-spent", "CPU of the run: join, s", _seconds),
    Row("traffic-spent", "CPU of the run: 30 s at rest, s", _seconds),
    Row("route-spent", "CPU of the run: new records, s", _seconds),
    Row("death-spent", "CPU of the run: deaths, s", _seconds),
    Row("spent", "CPU of the run: together, s", _seconds),
    Row("wall", "wall time of the run, s", _seconds, 120.0),
)


# -- measuring -------------------------------------------------------------------------------------


def run(nodes: int, seed: int, phases: Sequence[str], settle: float) -> Iterator[Found]:
    """All phases of one world in this process; what is known after each of them.

    Args:
        nodes: of the world.
        seed: of the world.
        phases: some of `PHASES`; all begin with the join.
        settle: virtual seconds from the join to the measurement of traffic.

    Raises:
        NodeError: something that is waited for does not come.
    """
    began = time.perf_counter()
    found: Found = {}

    def known(phase: str, values: Mapping[str, float]) -> Found:
        spent = found.get(f"{phase}-spent", 0.0) + values["spent"]
        found.update({f"{phase}-{key}": value for key, value in values.items()})
        found[f"{phase}-spent"] = spent
        found["spent"] = found.get("spent", 0.0) + values["spent"]
        found["wall"] = time.perf_counter() - began
        say(f"{nodes} nodes, {phase}: {values['spent']:.1f} s of CPU")
        return found

    crowd = Crowd(nodes, seed)
    yield known("join", asdict(crowd.join()))
    if "traffic" in phases:
        yield known("traffic", asdict(crowd.traffic(settle)))
    if "route" in phases:
        for loss in LOSSES:
            values = asdict(crowd.route(loss))
            spread = {f"{loss:g}-{key}": values[key] for key in ("p50", "p99", "longest")}
            yield known("route", spread | {"spent": values["spent"]})
    if "death" in phases:
        yield known("death", asdict(crowd.death()))


def apart(nodes: int, options: Namespace) -> Found:
    """The same in a process of its own.

    Raises:
        NodeError: it failed, or was ended; what it had found until then is said.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        words = [f"--nodes={nodes}", f"--seed={options.seed}", f"--alone={path}"]
        words += [f"--only={','.join(_phases(options))}", f"--settle={options.settle}"]
        command = [sys.executable, "-m", "bench", "cluster", *words]
        done = subprocess.run(command, env=os.environ | ALLOCATOR, check=False)
        found = _read(path)
    if done.returncode:
        why = "not measured to the end: is there enough memory, and was it let finish?"
        if not found:
            raise NodeError(f"{nodes} nodes: {why}")
        say(f"{nodes} nodes: {why}")
    return found


def _read(path: Path) -> Found:
    return cast("Found", json.loads(path.read_text("utf-8"))) if path.exists() else {}


def _write(path: Path, found: Mapping[str, object]) -> None:
    """At once or not at all: who writes may be killed."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    new.replace(path)


def _alone(nodes: int, options: Namespace) -> None:
    """What the process of one number of nodes does.

    Nobody looks for cyclic garbage in it: engines leave none while they run, and to look through
    those of a large world takes an eighth of its time.
    """
    gc.disable()
    for found in run(nodes, options.seed, _phases(options), options.settle):
        _write(options.alone, found)


# -- the command -----------------------------------------------------------------------------------


def add_options(parser: ArgumentParser) -> None:
    """The options of `scripts/bench cluster`."""
    parser.add_argument(
        "--nodes", default=NODES, metavar="COUNTS", help=f"in the cluster (default {NODES})"
    )
    parser.add_argument(
        "--only", default=",".join(PHASES), metavar="PHASES", help="some of: " + ", ".join(PHASES)
    )
    parser.add_argument("--seed", type=int, default=1, help="of everything random (default 1)")
    parser.add_argument(
        "--settle",
        type=float,
        default=REST,
        metavar="SECONDS",
        help=f"from the join until traffic is measured (default {REST:g}); sessions that only "
        "the join needed last 90",
    )
    parser.add_argument(
        "--slow-nodes",
        type=int,
        default=SLOW_NODES,
        help=f"nodes in the worlds in which some are starved of CPU (default {SLOW_NODES})",
    )
    parser.add_argument(
        "--slow-seeds", type=int, default=SLOW_SEEDS, help=f"such worlds (default {SLOW_SEEDS})"
    )
    parser.add_argument(
        "--alone", type=Path, metavar="FILE", help="measure in this process, write what was found"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")


def cluster(options: Namespace) -> None:
    """Do what the options say.

    Raises:
        NodeError: an option is wrong, or something that is waited for does not come.
    """
    phases, sizes = _phases(options), counts(options.nodes, "--nodes")
    if options.alone is not None:
        _alone(sizes[0], options)
        return
    on = machine()
    found: dict[int, Found] = {}
    tables = []
    if set(phases) != {"slow"}:
        engines = Founded(max(sizes))
        for nodes in sizes:
            found[nodes] = apart(nodes, options)
            found[nodes]["members-memory"] = measure(engines, nodes).memory
        tables.append(tabulate(found))
    if "slow" in phases:
        tables.append(starved(options.slow_nodes, options.seed, options.slow_seeds))
    if options.json is not None:
        document: Json = {"machine": on, "seed": options.seed, "cluster": found}
        _write(options.json, document)
    print(f"Python {on['python']}, {on['cores']} cores of {on['processor']}; seed {options.seed}\n")
    for table in tables:
        print((table.markdown() if options.markdown else table.text()) + "\n")


def _phases(options: Namespace) -> list[str]:
    phases = str(options.only).split(",")
    for phase in phases:
        if phase not in PHASES:
            raise NodeError(f"there is no phase {phase!r}: choose from {', '.join(PHASES)}")
    return phases


def tabulate(found: Mapping[int, Found]) -> Table:
    """A row per figure, a column per number of nodes, and whether it is enough."""
    rows = [
        [row.title, *(_cell(row, figures) for figures in found.values()), _verdict(row, found)]
        for row in ROWS
        if any(row.key in figures for figures in found.values())
    ]
    head = ["", *(f"{nodes:,} nodes" for nodes in found), "target"]
    return Table("A simulated cluster as it grows", head, rows)


def _cell(row: Row, figures: Found) -> str:
    return row.show(figures[row.key]) if row.key in figures else NOTHING


def _verdict(row: Row, found: Mapping[int, Found]) -> str:
    if row.most is None:
        return NOTHING
    judged = {
        nodes: figures[row.key]
        for nodes, figures in found.items()
        if nodes >= JUDGED_FROM and row.key in figures
    }
    bound = f"<= {row.most:,g}"
    if not judged:
        return bound
    missed = [f"{nodes:,}" for nodes, value in judged.items() if value > row.most]
    return f"{bound}: not met at {', '.join(missed)}" if missed else f"{bound}: met"
