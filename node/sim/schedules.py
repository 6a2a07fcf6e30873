"""Many random schedules, on one processor or on several, and what came of them.

A schedule is made from its seed alone, so which process runs it makes no difference.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Final, NamedTuple

from overlay.sim.schedules import Outcome, run_schedule
from overlay.sim.steps import STEPS

STEP_NAMES: Final = tuple(name for name, _, _ in STEPS)
"""What may happen in a schedule."""

CHUNK: Final = 20
"""Schedules that a process takes at a time."""

SLOWEST: Final = 3


class Timed(NamedTuple):
    """An outcome and the real seconds it took."""

    outcome: Outcome
    took: float


def run_all(seeds: range, *, steps: frozenset[str] | None, jobs: int) -> Iterator[Timed]:
    """The outcomes of all seeds, in their order.

    Args:
        seeds: one schedule each.
        steps: names of what may happen; everything when None.
        jobs: processes, 1 or more; with 1 it happens in this one.
    """
    work = partial(_run_one, steps=steps)
    if jobs == 1:
        yield from map(work, seeds)
        return
    # Not forked: the caller may have threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        yield from pool.map(work, seeds, chunksize=min(CHUNK, 1 + len(seeds) // jobs))


def _run_one(seed: int, *, steps: frozenset[str] | None) -> Timed:
    began = time.perf_counter()
    outcome = run_schedule(seed, steps=steps)
    return Timed(outcome, time.perf_counter() - began)


def facts(done: Sequence[Timed], real: float) -> list[tuple[str, str]]:
    """What there is to say of at least one schedule, as pairs of a word and a clause.

    Args:
        done: what was run.
        real: seconds that it took on the wall.
    """
    outcomes = [one.outcome for one in done]
    failed = [outcome for outcome in outcomes if outcome.failure]
    sizes = sorted(outcome.nodes for outcome in outcomes)
    broken = Counter(name for outcome in failed for name in outcome.broken)
    slowest = sorted(done, key=lambda one: one.took, reverse=True)[:SLOWEST]
    each = 1000 * sum(one.took for one in done) / len(done)
    return [
        ("schedules", f"{len(done)}, {len(failed)} failed"),
        ("nodes", f"{sizes[0]} to {sizes[-1]}, half have at most {sizes[len(sizes) // 2]}"),
        ("events", f"{sum(outcome.events for outcome in outcomes)}"),
        ("virtual", f"{sum(outcome.virtual for outcome in outcomes):.0f} s"),
        ("real", f"{real:.1f} s, {each:.0f} ms each"),
        ("slowest", _list(f"seed {one.seed}: {took:.1f} s" for one, took in slowest)),
        ("breaches", _list(f"{name} {count}" for name, count in broken.most_common())),
    ]


def _list(texts: Iterable[str]) -> str:
    return ", ".join(texts) or "none"
