"""Run a simulated cluster and say how long it took to agree, in virtual and in real seconds.

    scripts/sim --nodes 50 --loss 0.05 --partition 20
    scripts/sim --nodes 3 --mermaid join.md --window 0 0.2      a sequence diagram of the join
    scripts/sim --nodes 8 --trace before.jsonl                  compare with another run's

The same options give the same trace, byte for byte; its fingerprint is the last line.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from overlay.config import Settings, Timing
from overlay.errors import ConfigError
from overlay.sim import Link, NotReachedError, World

PATIENCE = 120.0
"""Virtual seconds that a cluster may take to agree."""


def main() -> int:
    """Run what the command line asks for; returns the exit status."""
    options = parse()
    try:
        world = make_world(options)
    except ConfigError as error:
        print(f"sim: cannot make that world: {error}", file=sys.stderr)
        return 2
    try:
        rows = run(world, options)
    except (NotReachedError, AssertionError) as error:
        print(f"sim: {error}", file=sys.stderr)
        return 1
    finally:
        write_traces(world, options)
    report(world, rows)
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="sim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=10, help="how many nodes (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of everything random (%(default)s)")
    parser.add_argument("--latency", type=float, default=0.01, help="one way, s (%(default)s)")
    parser.add_argument("--jitter", type=float, default=0.005, help="up to, s (%(default)s)")
    parser.add_argument("--loss", type=float, default=0.0, help="share of datagrams (%(default)s)")
    parser.add_argument("--duplication", type=float, default=0.0, help="share that comes twice")
    parser.add_argument("--reordering", type=float, default=0.0, help="share that comes late")
    parser.add_argument("--mtu", type=int, default=1500, help="of every path, bytes (%(default)s)")
    parser.add_argument(
        "--partition", type=float, default=0.0, metavar="S", help="cut into two halves for S s"
    )
    parser.add_argument(
        "--probe-interval", type=float, default=2.0, metavar="S", help="see Timing (%(default)s)"
    )
    parser.add_argument(
        "--offline", action="store_true", help="certify nodes offline, without the join exchange"
    )
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write the events as JSON lines")
    parser.add_argument("--mermaid", type=Path, metavar="FILE", help="write a sequence diagram")
    parser.add_argument(
        "--window", type=float, nargs=2, default=(0.0, 1.0), metavar=("FROM", "TO"),
        help="seconds that the diagram shows (0 1)",
    )  # fmt: skip
    options = parser.parse_args()
    if options.nodes < 1:
        parser.error("--nodes must be 1 or more")
    return options


def make_world(options: argparse.Namespace) -> World:
    """A world as the options say, with its founder."""
    link = Link(
        latency=options.latency,
        jitter=options.jitter,
        loss=options.loss,
        duplication=options.duplication,
        reordering=options.reordering,
        mtu=options.mtu,
    )
    probe = options.probe_interval
    timing = Timing(probe_interval=probe, suspect_after=3 * probe, dead_after=15 * probe)
    return World(options.seed, settings=Settings(timing=timing), link=link)


def run(world: World, options: argparse.Namespace) -> list[tuple[str, float, float]]:
    """Join, partition, heal; returns what was done, and how long it took, virtually and really."""
    rows = []

    def phase(name: str, virtual: float) -> None:
        nonlocal began
        world.check_invariants()
        rows.append((name, virtual, time.perf_counter() - began))
        began = time.perf_counter()

    began = time.perf_counter()
    for number in range(2, options.nodes + 1):
        (world.add_node if options.offline else world.join)(f"node{number}")
    phase(f"{options.nodes} nodes agree", world.run_until(world.converged, PATIENCE))
    if options.partition:
        names = list(world.machines)
        halves = names[: len(names) // 2], names[len(names) // 2 :]
        world.partition(*halves)
        for half in filter(None, halves):
            world[half[-1]].add_pod("born-apart")
        world.run(world.now + options.partition)
        phase("in two halves", options.partition)
        world.heal()
        phase("agree after healing", world.run_until(world.converged, PATIENCE))
    return rows


def write_traces(world: World, options: argparse.Namespace) -> None:
    """Write the files that were asked for."""
    if options.trace:
        with options.trace.open("w") as file:
            file.writelines(line + "\n" for line in world.trace.lines())
    if options.mermaid:
        diagram = world.trace.mermaid(*options.window)
        options.mermaid.write_text(f"```mermaid\n{diagram}```\n")


def report(world: World, rows: list[tuple[str, float, float]]) -> None:
    """Print the table."""
    print(f"{'phase':<24}{'virtual s':>12}{'real s':>10}")
    for name, virtual, real in rows:
        print(f"{name:<24}{virtual:>12.2f}{real:>10.2f}")
    routes = world[world.founder].snapshot().routes
    nodes = {route.node for route in routes}
    print(f"\nroutes      {len(routes)} to {len(nodes)} nodes, the same everywhere")
    print("invariants  hold: no block and no address twice, all books balance")
    print(f"trace       {len(world.trace)} events, fingerprint {world.trace.fingerprint()}")


if __name__ == "__main__":
    sys.exit(main())
