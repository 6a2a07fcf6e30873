"""Run random schedules and say what broke, with the one command that brings it back.

    scripts/schedules --count 10000 --seed 1 --jobs 2
    scripts/schedules --seed 4711 --count 1 --verbose     what happened in one of them
    scripts/schedules --only join,crash,start,add-pod     only these steps

Each schedule is made from its seed alone: seeds SEED to SEED + COUNT - 1 are run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

from overlay.sim.schedules import Outcome, run_schedule
from overlay.sim.steps import STEPS

CHUNK = 20
"""Schedules that a worker takes at a time."""

PROGRESS_INTERVAL = 2.0
SLOWEST = 3


class Timed(NamedTuple):
    """An outcome and the real seconds it took."""

    outcome: Outcome
    took: float


def main() -> int:
    """Run what the command line asks for; returns the exit status."""
    options = parse()
    began = time.perf_counter()
    done: list[Timed] = []
    failed: list[Outcome] = []
    shown_at = began
    for one in run(options):
        done.append(one)
        if one.outcome.failure:
            failed.append(one.outcome)
            complain(one.outcome, options)
        if options.verbose:
            print("\n".join(one.outcome.log))
        if time.perf_counter() - shown_at > PROGRESS_INTERVAL:
            shown_at = time.perf_counter()
            show_progress(len(done), len(failed), options, shown_at - began)
    report(done, failed, time.perf_counter() - began)
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="schedules", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first one (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (%(default)s)")
    parser.add_argument("--verbose", action="store_true", help="print every step")
    names = [name for name, _, _ in STEPS]
    parser.add_argument("--only", metavar="STEP,...", help=f"of {', '.join(names)}")
    options = parser.parse_args()
    if options.count < 1 or options.jobs < 1:
        parser.error("--count and --jobs must be 1 or more")
    options.steps = None if options.only is None else frozenset(options.only.split(","))
    if options.steps is not None and not options.steps <= set(names):
        parser.error(f"--only: no such step: {', '.join(sorted(options.steps - set(names)))}")
    return options


def run(options: argparse.Namespace) -> Iterator[Timed]:
    """All outcomes, in the order of their seeds."""
    seeds = range(options.seed, options.seed + options.count)
    work = partial(run_one, steps=options.steps)
    if options.jobs == 1:
        yield from map(work, seeds)
        return
    with ProcessPoolExecutor(options.jobs) as pool:
        yield from pool.map(work, seeds, chunksize=min(CHUNK, 1 + options.count // options.jobs))


def run_one(seed: int, *, steps: frozenset[str] | None) -> Timed:
    """One schedule, timed."""
    began = time.perf_counter()
    outcome = run_schedule(seed, steps=steps)
    return Timed(outcome, time.perf_counter() - began)


def complain(outcome: Outcome, options: argparse.Namespace) -> None:
    """What went wrong, the last steps before it, and how to see it again."""
    only = f" --only {options.only}" if options.only else ""
    print(f"schedules: seed {outcome.seed}, {outcome.nodes} nodes: {outcome.failure}")
    print(f"  replay: scripts/schedules --seed {outcome.seed} --count 1{only} --verbose")


def show_progress(done: int, failed: int, options: argparse.Namespace, took: float) -> None:
    """A line on a terminal that is written over again and again."""
    if sys.stderr.isatty():
        left = took / done * (options.count - done)
        line = f"{done}/{options.count} schedules, {failed} failed, {left:.0f} s left"
        print(f"\r{line:<60}", end="", file=sys.stderr, flush=True)


def report(done: list[Timed], failed: list[Outcome], took: float) -> None:
    """Print the table."""
    outcomes = [one.outcome for one in done]
    sizes = sorted(outcome.nodes for outcome in outcomes)
    broken = Counter(name for outcome in failed for name in outcome.broken)
    slowest = sorted(done, key=lambda one: one.took)[-SLOWEST:]
    if sys.stderr.isatty():
        print(f"\r{'':<60}\r", end="", file=sys.stderr)
    print(f"{'schedules':<12}{len(done)}, {len(failed)} failed")
    print(f"{'nodes':<12}{sizes[0]} to {sizes[-1]}, half have at most {sizes[len(sizes) // 2]}")
    print(f"{'events':<12}{sum(outcome.events for outcome in outcomes)}")
    print(f"{'virtual':<12}{sum(outcome.virtual for outcome in outcomes):.0f} s")
    print(
        f"{'real':<12}{took:.1f} s, {1000 * sum(one.took for one in done) / len(done):.0f} ms each"
    )
    print(f"{'slowest':<12}{_list(f'seed {o.seed}: {t:.1f} s' for o, t in reversed(slowest))}")
    print(f"{'breaches':<12}{_list(f'{name} {count}' for name, count in broken.most_common())}")


def _list(texts: Iterable[str]) -> str:
    return ", ".join(texts) or "none"


if __name__ == "__main__":
    sys.exit(main())
