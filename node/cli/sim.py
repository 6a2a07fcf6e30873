"""`muslin sim`: a simulated cluster on virtual time, from a scenario. Needs no daemon, no root.

    muslin sim scenarios/partition.toml --nodes 30 --seed 7
    muslin sim --random --count 1000                            see `node.cli.schedules`

Unmodified engines run on a simulated network; a minute costs seconds. The same scenario, seed and
number of nodes give the same run, byte for byte, so a run that fails names the command that brings
it back.
"""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from node.cli.context import CliError, Finite, doing
from node.cli.output import table, to_json, to_yaml
from node.cli.progress import Progress
from node.cli.schedules import COUNT, run_random

if TYPE_CHECKING:  # the verb alone pays for the engine's imports
    from overlay.sim.outcome import Outcome
    from overlay.sim.play import Play
    from overlay.sim.scenario import Scenario

Json = dict[str, object]

OF_SCENARIOS: Final = ("nodes", "until", "trace", "mermaid", "window", "plot")
OF_RANDOM: Final = ("count", "jobs", "only", "verbose")
"""Options that only one of the two kinds of runs has."""

CANNOT_WRITE: Final = "cannot write what was asked for"


@click.command(
    epilog="""\b
Examples:
  muslin sim scenarios/join.toml                            one of the scenarios that are shipped
  muslin sim scenarios/mass-death.toml --nodes 100 --seed 7
  muslin sim scenarios/join.toml --nodes 3 --mermaid join.md --window 0 0.2
  muslin sim scenarios/wan.toml --plot convergence.svg -o json
  muslin sim --random --count 1000 --jobs 2                 whatever can happen, by chance

\b
A scenario says how many nodes there are, what the network is like, what happens when, and what is
expected; the files in scenarios/ explain themselves. The table has, for each event, how many
seconds it took until the nodes showed its final state. The exit code is 1 when an expectation or
an invariant did not hold; then the last line is the command that replays the run.

\b
With --random there is no scenario: small clusters, and nodes that join, leave, crash, are cut off,
copied, hostile, in any order. Each seed is another schedule, all invariants are checked after every
event, and in the end all nodes must agree. Whatever fails is printed with its replay."""
)
@click.argument(
    "scenario", metavar="SCENARIO.toml", required=False, type=click.Path(path_type=Path)
)
@click.option("--random", "by_chance", is_flag=True, help="Run random schedules instead.")
@click.option("--count", type=click.IntRange(1), help=f"How many, from --seed on.  [{COUNT}]")
@click.option("--jobs", type=click.IntRange(1), help="Processes that run them.  [1]")
@click.option("--only", metavar="STEP,...", help="Let only these things happen in them.")
@click.option("--verbose", is_flag=True, help="Print what happens in them.")
@click.option("--nodes", type=click.IntRange(1), help="Other number of nodes than the file's.")
@click.option("--seed", type=int, help="Other seed than the file's; of the first, by chance.")
@click.option(
    "--until",
    type=Finite(0.0),
    metavar="S",
    help="Stop at this virtual time; what has not happened by then is not judged.",
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write everything that happened as JSON lines.",
)
@click.option(
    "--mermaid",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a sequence diagram of --window.",
)
@click.option(
    "--window",
    type=Finite(0.0),
    nargs=2,
    default=(0.0, 1.0),
    metavar="FROM TO",
    help="Virtual seconds that the diagram shows.  [default: 0 1]",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw how events spread, as .svg or .png.",
)
@click.option("-o", "--output", type=click.Choice(("json", "yaml")), help="For programs.")
@click.pass_context
def sim(
    context: click.Context,
    /,
    scenario: Path | None,
    *,
    by_chance: bool,
    **options: Any,  # noqa: ANN401 - passed on by name, and typed where they arrive
) -> int:
    """Run a simulated cluster from a scenario file, on virtual time, and judge it."""
    _check_usage(context, scenario, by_chance=by_chance)
    shared = {name: options[name] for name in ("seed", "output")}
    if scenario is None:
        return run_random(**shared, **{name: options[name] for name in OF_RANDOM})
    return run_scenario(scenario, **shared, **{name: options[name] for name in OF_SCENARIOS})


def _check_usage(context: click.Context, scenario: Path | None, *, by_chance: bool) -> None:
    if by_chance == (scenario is not None):
        raise click.UsageError("give it a SCENARIO.toml, or --random")
    given = {
        name
        for name in context.params
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    if wrong := sorted(given.intersection(OF_SCENARIOS if by_chance else OF_RANDOM)):
        fits = "needs a scenario" if by_chance else "needs --random"
        raise click.UsageError(f"--{wrong[0]} {fits}")
    begin, end = context.params["window"]
    if "window" in given and context.params["mermaid"] is None:
        raise click.UsageError("--window needs --mermaid")
    if not begin <= end:
        raise click.UsageError("--window begins before it ends")


def run_scenario(
    scenario: Path,
    *,
    nodes: int | None,
    seed: int | None,
    until: float | None,
    trace: Path | None,
    mermaid: Path | None,
    window: tuple[float, float],
    plot: Path | None,
    output: str | None,
) -> int:
    """Run a scenario and print what came of it; options as `muslin sim --help` has them.

    Raises:
        CliError: it cannot be run, or something did not hold. Nothing else.
    """
    from overlay.sim.play import Play  # noqa: PLC0415 - only this verb simulates

    began = time.monotonic()
    with doing(f"cannot simulate {scenario}"):
        spec = read(scenario, nodes)
    with doing(CANNOT_WRITE):
        check_files(trace, mermaid, plot)
    with doing(f"cannot simulate {scenario}"):
        play = Play(spec, seed=seed, keep_datagrams=bool(trace or mermaid))
        outcome = watched(play, until)
    real = time.monotonic() - began
    failures = outcome.failures(spec.expect)
    again = replay(scenario, play, nodes, until)
    show(play, outcome, failures, output, real=real, again=again)
    with doing(CANNOT_WRITE):
        write_files(play, outcome, trace, mermaid, window, plot=plot)
    if failures:
        raise CliError("the simulation failed", "; ".join(failures), f"replay it with {again}")
    return 0


def read(path: Path, nodes: int | None) -> Scenario:
    """The scenario in a file, with another number of nodes if one is given.

    Raises:
        OverlayError: it is none. OSError: it cannot be read.
    """
    from node.errors import NodeError  # noqa: PLC0415 - as above
    from overlay.sim.scenario import parse  # noqa: PLC0415 - as above

    try:
        scenario = parse(path.read_text())
    except UnicodeDecodeError as error:
        raise NodeError("it is not text", "give it a TOML file") from error
    return scenario if nodes is None else scenario.scaled(nodes)


def watched(play: Play, until: float | None) -> Outcome:
    """Run it, and say on a terminal how far it is."""
    end = play.scenario.until if until is None else until
    progress = Progress("making the world")

    def say(play: Play) -> None:
        live = len(play.world.live())
        knowing = live - play.waiting()
        progress.set(f"{play.world.now:.0f} of {end:.0f} virtual s, {knowing} of {live} up to date")

    with progress:
        return play.run(until, say)


def check_files(trace: Path | None, mermaid: Path | None, plot: Path | None) -> None:
    """Refuse what cannot be written before hours go into it. Raises as `write_files`."""
    from node.sim.plot import converter  # noqa: PLC0415 - as above

    if plot is not None:
        converter(plot)
    for path in (trace, mermaid, plot):
        if path is not None:
            path.open("a").close()


def write_files(
    play: Play,
    outcome: Outcome,
    trace: Path | None,
    mermaid: Path | None,
    window: tuple[float, float],
    *,
    plot: Path | None,
) -> None:
    """Write the files that were asked for. Raises OSError, and OverlayError for pictures."""
    from node.sim.plot import picture, save  # noqa: PLC0415 - as above

    if trace is not None:
        with trace.open("w") as file:
            file.writelines(line + "\n" for line in play.world.trace.lines())
    if mermaid is not None:
        mermaid.write_text(f"```mermaid\n{play.world.trace.mermaid(*window)}```\n")
    if plot is not None:
        note = f"{play.scenario.cluster.nodes} nodes, seed {play.seed}"
        save(picture(play.scenario.title, outcome.events, note), plot)


def replay(scenario: Path, play: Play, nodes: int | None, until: float | None) -> str:
    """The command that does the same again."""
    words = ["muslin", "sim", str(scenario), "--seed", str(play.seed)]
    words += [] if nodes is None else ["--nodes", str(nodes)]
    words += [] if until is None else ["--until", f"{until:g}"]
    return shlex.join(words)


def show(
    play: Play,
    outcome: Outcome,
    failures: list[str],
    output: str | None,
    *,
    real: float,
    again: str,
) -> None:
    """Print the answer."""
    from node.sim.report import HEADERS, as_json, facts, rows  # noqa: PLC0415 - as above

    fingerprint = play.world.trace.fingerprint()
    if output is None:
        spec = play.scenario
        click.echo(f"{spec.title}: {spec.cluster.nodes} nodes, seed {play.seed}\n")
        click.echo(table(HEADERS, rows(outcome)) + "\n")
        entries = f"{len(play.world.trace)} entries, fingerprint {fingerprint}"
        pairs = [*facts(outcome, real), ("trace", entries)]
        width = max(len(word) for word, _ in pairs)
        click.echo("\n".join(f"{word:<{width}}   {clause}" for word, clause in pairs))
        return
    about: Json = {
        "title": play.scenario.title,
        "seed": play.seed,
        "fingerprint": fingerprint,
        "real": round(real, 3),
        "replay": again,
    }
    answer = as_json(outcome, failures, about)
    click.echo(to_json(answer) if output == "json" else to_yaml(answer))
