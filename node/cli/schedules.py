"""`muslin sim --random`: schedules of everything that can happen to a cluster, by chance.

    muslin sim --random --count 10000 --seed 1 --jobs 2
    muslin sim --random --seed 4711 --count 1 --verbose      what happened in one of them

Seeds SEED to SEED + COUNT - 1 are run, each a schedule of its own. One that fails is printed with
the command that brings it back.
"""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Final

import click

from node.cli.context import CliError
from node.cli.output import to_json, to_yaml
from node.cli.progress import Progress

if TYPE_CHECKING:  # the verb alone pays for the engine's imports
    from node.sim.schedules import Timed
    from overlay.sim.schedules import Outcome

Json = dict[str, object]

COUNT: Final = 100
SEED: Final = 1


def run_random(
    *,
    seed: int | None,
    count: int | None,
    jobs: int | None,
    only: str | None,
    verbose: bool,
    output: str | None,
) -> int:
    """Run the schedules and print what came of them; options as `muslin sim --help` has them.

    Raises:
        UsageError: `only` names no step. CliError: a schedule failed. Nothing else.
    """
    from node.sim.schedules import run_all  # noqa: PLC0415 - only this verb simulates

    first, count = SEED if seed is None else seed, count or COUNT
    steps = _steps(only)
    began = time.perf_counter()
    done: list[Timed] = []
    failed: list[Outcome] = []
    progress = Progress(f"0 of {count} schedules")
    with progress:
        for one in run_all(range(first, first + count), steps=steps, jobs=jobs or 1):
            done.append(one)
            if one.outcome.failure:
                failed.append(one.outcome)
            if output is None:
                _tell(one.outcome, only, verbose=verbose)
            progress.set(f"{len(done)} of {count} schedules, {len(failed)} failed")
    _show(done, only, output, real=time.perf_counter() - began)
    if failed:
        what = f"{len(failed)} of {count} schedules failed"
        why = f"seed {failed[0].seed}: {_one_line(failed[0].failure)}"
        raise CliError(what, why, f"replay it with {replay(failed[0].seed, only)}")
    return 0


def replay(seed: int, only: str | None) -> str:
    """The command that does one schedule again.

    >>> replay(7, None)
    'muslin sim --random --seed 7 --count 1 --verbose'
    """
    words = ["muslin", "sim", "--random", "--seed", str(seed), "--count", "1"]
    return shlex.join([*words, *(() if only is None else ("--only", only)), "--verbose"])


def _steps(only: str | None) -> frozenset[str] | None:
    from node.sim.schedules import STEP_NAMES  # noqa: PLC0415 - as above

    if only is None:
        return None
    steps = frozenset(only.split(","))
    if unknown := steps.difference(STEP_NAMES):
        known = ", ".join(STEP_NAMES)
        raise click.UsageError(f"--only: no step {', '.join(sorted(unknown))}, steps are {known}")
    return steps


def _tell(outcome: Outcome, only: str | None, *, verbose: bool) -> None:
    """What happened in a schedule if that was asked for; what went wrong in it in any case."""
    if verbose:
        click.echo("\n".join(outcome.log))
    if outcome.failure:
        click.echo(f"seed {outcome.seed}, {outcome.nodes} nodes: {_one_line(outcome.failure)}")
        click.echo(f"  replay: {replay(outcome.seed, only)}")


def _one_line(failure: str) -> str:
    return " ".join(failure.split())


def _show(done: list[Timed], only: str | None, output: str | None, *, real: float) -> None:
    from node.sim.schedules import facts  # noqa: PLC0415 - as above

    if output is None:
        click.echo("\n".join(f"{word:<12}{clause}" for word, clause in facts(done, real)))
        return
    answer: Json = {
        "count": len(done),
        "failed": [_as_json(one.outcome, only) for one in done if one.outcome.failure],
        "events": sum(one.outcome.events for one in done),
        "virtual": round(sum(one.outcome.virtual for one in done), 3),
        "real": round(real, 3),
    }
    click.echo(to_json(answer) if output == "json" else to_yaml(answer))


def _as_json(outcome: Outcome, only: str | None) -> Json:
    return {
        "seed": outcome.seed,
        "nodes": outcome.nodes,
        "failure": outcome.failure,
        "broken": list(outcome.broken),
        "replay": replay(outcome.seed, only),
    }
