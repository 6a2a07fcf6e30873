"""Containers that come and go on one node, by real plugin processes.

    scripts/churn                                 20 at a time, 1,000 each
    scripts/churn --parallel 1 --cycles 50        what one takes by itself

A node in a namespace with the installed plugin; each worker adds a container and deletes it again,
with a new id each time. Printed are the median and the 99th percentile of ADD and DEL, from the
start of the plugin's process to its end, and where that time goes; the processor time of plugins
and daemon; the daemon's memory; and how soon an address was given again. The exit code is 0 if
every verb succeeded, nothing is left (links, addresses, routes, rules, descriptors, threads, state)
and no address came back before its quarantine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from bench.scripts import as_root, at_least, ended, parser_of
from tests.support.churn import STEPS, Churned, churn, inventory, left_of, memory
from tests.support.labs import remove_leftovers
from tests.support.machines import YardMaker
from tests.support.runtime import Runtime
from tests.support.waiting import eventually, steady

WARM_UP = 5
"""Cycles of each worker before anything is counted."""

SETTLED = 30.0
BLOCK = "20"
"""Prefix length of a node's block: 4,000 addresses, more than rest at once. A node that takes
another block has more routes than before, and nothing has leaked."""

MOST_GROWTH = 16 << 20
"""Bytes that the daemon may grow: books of addresses in quarantine, a heap with holes. A leak of
1 KiB for each of 20,000 containers is more."""


def main() -> int:
    """Churn, print, compare; returns the exit code."""
    parser = parser_of("churn", __doc__)
    parser.add_argument("--parallel", type=at_least(1), default=20, help="workers [20]")
    parser.add_argument("--cycles", type=at_least(1), default=1000, help="of each worker [1000]")
    parser.add_argument("--quarantine", type=at_least(1), default=20, help="seconds [20]")
    options = as_root(parser)
    try:
        with ExitStack() as stack:
            yard = stack.enter_context(YardMaker())(1)
            yard.info.settings["MUSLIN_QUARANTINE"] = str(options.quarantine)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            runtime = Runtime(yard.found("--block-prefix", BLOCK), folder)
            return run(stack, runtime, options)
    finally:
        remove_leftovers()


def run(stack: ExitStack, runtime: Runtime, options: argparse.Namespace) -> int:
    """Churn on a node that is up."""
    containers = [stack.enter_context(runtime.container()) for _ in range(options.parallel)]
    warm = churn(runtime, containers, min(WARM_UP, options.cycles))
    before = steady(lambda: inventory(runtime), within=SETTLED, poll=0.5)
    had = memory(runtime)
    every = max(1, options.parallel * options.cycles // 10)

    def tell(done: int) -> None:
        if done % every == 0:
            mib = memory(runtime) / (1 << 20)
            print(f"churn: {done:,} cycles, daemon {mib:.1f} MiB", file=sys.stderr, flush=True)

    churned = churn(runtime, containers, options.cycles, tell=tell)
    grown = memory(runtime) - had
    show(churned, options, had, grown)
    failures = [*warm.failures, *churned.failures]
    with suppress(AssertionError):
        eventually(lambda: not left_of(runtime, before), within=SETTLED)
    failures += [
        f"{what}: {was} before, {now} now" for what, (was, now) in left_of(runtime, before).items()
    ]
    reused = churned.soonest_reuse()
    if reused is not None and reused < options.quarantine:
        failures.append(f"an address was given again after {reused:.2f} s")
    if grown > MOST_GROWTH:
        failures.append(f"the daemon's memory grew by {grown / (1 << 20):.1f} MiB")
    for failure in failures:
        print(f"FAILED {failure}")
    print("nothing is left" if not failures else f"{len(failures)} failures")
    return 1 if failures else 0


def show(churned: Churned, options: argparse.Namespace, had: int, grown: int) -> None:
    """Print the tables."""
    count = len(churned.verbs["ADD"])
    if not count:
        return
    rate = count / churned.seconds
    print(f"{count:,} containers, {options.parallel} at a time: {rate:.1f} a second")
    print("\n| verb | p50 ms | p90 ms | p99 ms | longest ms |\n|---|---|---|---|---|")
    for verb in churned.verbs:
        cells = [f"{churned.quantile(verb, part) * 1e3:.1f}" for part in (0.5, 0.9, 0.99, 1.0)]
        print(f"| {verb} | {' | '.join(cells)} |")
    print("\n| of an ADD | p50 ms | p99 ms |\n|---|---|---|")
    for number, step in enumerate(STEPS):
        median, most = churned.step("ADD", number)
        print(f"| {step} | {median * 1e3:.1f} | {most * 1e3:.1f} |")
    plugin, daemon = (cpu / count * 1e3 for cpu in (churned.plugin_cpu, churned.daemon_cpu))
    print(
        f"\nprocessor time of one ADD and one DEL: plugins {plugin:.1f} ms, daemon {daemon:.1f} ms"
    )
    print(f"daemon's memory: {had / (1 << 20):.1f} MiB, {grown / (1 << 20):+.1f} MiB at the end")
    reused = churned.soonest_reuse()
    said = "none was" if reused is None else f"{reused:.2f} s after DEL at the soonest"
    print(f"addresses given again: {said} (quarantine {options.quarantine} s)\n")


if __name__ == "__main__":
    sys.exit(ended("churn", main))
