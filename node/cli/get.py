"""`muslin get` and `muslin status`: looking, never changing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import count
from typing import Final

import click

from node.cli.columns import BY_NAME, KINDS, Kind, render
from node.cli.context import (
    CliError,
    Invocation,
    Json,
    doing,
    objects,
    pass_invocation,
    state_option,
)
from node.cli.output import FORMATS, duration, plain, table, to_json, to_yaml
from node.cli.progress import Progress
from overlay.wall import remaining

WATCH_INTERVAL: Final = 1.0

_HOME_AND_CLEAR: Final = "\x1b[H\x1b[J"


@click.command(
    epilog="""\b
Examples:
  muslin get nodes -o wide
  muslin get pods web -o json
  muslin get sessions --watch"""
)
@click.argument("kind", metavar="KIND")
@click.argument("name", required=False)
@click.option(
    "-o", "--output", type=click.Choice(FORMATS), help="Something else than the usual table."
)
@click.option("-w", "--watch", is_flag=True, help="Keep showing it when it changes.")
@state_option()
@pass_invocation
def get(
    invocation: Invocation, kind: str, name: str | None, output: str | None, *, watch: bool
) -> int:
    """List nodes, pods, routes, sessions or blocks, as this node sees them.

    NAME selects one: a node's name, NAME or NODE/NAME of a pod, the prefix of a route or block.
    """
    shown = BY_NAME.get(kind)
    if shown is None:
        kinds = ", ".join(known.names[0] for known in KINDS)
        raise click.UsageError(f"there is no kind {kind!r}, kinds are {kinds}")
    with doing(f"cannot get {shown.names[0]}"):
        if watch:
            _watch(invocation, shown, name, output)
        else:
            with Progress("waiting for the daemon"):
                items = _fetch(invocation, shown, name)
            _print(render(shown, items, output))
    return 0


def _fetch(invocation: Invocation, kind: Kind, name: str | None) -> list[Json]:
    items = invocation.ask_list("get", kind=kind.names[0])
    if name is None:
        return items
    found = [item for item in items if kind.matches(item, name)]
    if not found:
        singular = kind.names[1]
        known = ", ".join(kind.name_of(item)[0] for item in items[:12]) or "none"
        raise CliError(
            f"cannot get {singular} {name}",
            f"there is no {singular} {name}",
            f"{kind.names[0]} are: {known}{', ...' if len(items) > 12 else ''}",
        )
    return found


def _print(text: str) -> None:
    if text:  # no names are no lines, not an empty one
        click.echo(text)


def _watch(invocation: Invocation, kind: Kind, name: str | None, output: str | None) -> None:
    """A screen that is redrawn on a terminal; elsewhere, the answer again whenever it changed."""
    screen = sys.stdout.isatty() and output in {None, "wide"}
    last: list[Json] | None = None
    for items in _looks(invocation, kind, name):
        news = kind.news(items)
        if screen:
            click.echo(_HOME_AND_CLEAR + render(kind, items, output))
        elif news != last:
            click.echo(
                to_json(items, compact=True) if output == "json" else render(kind, items, output)
            )
        last = news


def _looks(invocation: Invocation, kind: Kind, name: str | None) -> Iterator[list[Json]]:
    for number in count():
        if number:
            time.sleep(WATCH_INTERVAL)
        yield _fetch(invocation, kind, name)


@click.command(
    epilog="""\b
Examples:
  muslin status
  muslin status -o json | jq .ledger

\b
The row `gossip` has what should not happen often among members, and only what did:
  awareness         how slow this node itself seems to be now, 0 (well) to 8
  damped            changes of records that changed too often and were not passed on at once
  forged_claims     words about a member's life that it did not sign
  refuted           times that others suspected this node and it answered that it lives
  refused_items     records that their owner did not sign, or that make no sense
  overflowed_items  records for which there was no room
  routes_refused    networks that members advertise and that are not in force"""
)
@click.option("-o", "--output", type=click.Choice(("json", "yaml")), help="For programs.")
@state_option()
@pass_invocation
def status(invocation: Invocation, output: str | None) -> int:
    """Say whether this node is well, and if not, why and what to do. Exit 0 well, 1 not."""
    with doing("cannot tell the status"), Progress("waiting for the daemon"):
        answer = invocation.ask("status")
    match output:
        case "json":
            click.echo(to_json(answer))
        case "yaml":
            click.echo(to_yaml(answer))
        case _:
            click.echo(_status_text(answer))
    return 0 if answer["state"] == "ready" else 1


def _status_text(answer: Json) -> str:
    ledger, drops = _split_ledger(answer["ledger"])
    rows = [
        ("node", plain(answer["node"])),
        ("state", plain(answer["state"])),
        ("cluster", plain(answer["cluster"])),
        ("network", _both(answer, "cidr", "cidr6")),
        ("address", _both(answer, "address", "address6") or "none yet"),
        ("nodes", _nonzero(answer["nodes"])),
        ("pods", plain(answer["pods"])),
        ("uptime", duration(answer["uptime"])),
        ("offloads", plain(answer["offloads"]) or "none"),
        *_lanes(answer["lanes"]),
        ("guard", _guard(answer["guard"])),
        ("certificate", _certificate(answer)),
        ("ledger", ledger),
        ("drops", drops or "none"),
        ("gossip", _nonzero(answer["gossip"]) or "calm"),
    ]
    lines = [f"{key:<13}{value}" for key, value in rows]
    for heading, what in (("problem", "problems"), ("notice", "notices")):
        if shown := objects(answer[what]):
            keys = ("code", "what", "why", "fix")
            rows_of_problems = [[plain(one[key]) for key in keys] for one in shown]
            lines += ["", table([heading, *keys[1:]], rows_of_problems)]
    return "\n".join(lines)


def _lanes(lanes: object) -> list[tuple[str, str]]:
    """With one lane there is nothing to tell."""
    states = [str(lane["state"]) for lane in objects(lanes)]
    counts = {state: states.count(state) for state in sorted(set(states))}
    return [("lanes", plain(counts))] if len(states) > 1 else []


def _guard(guard: object) -> str:
    """Who checks what pods send, and what was dropped; or why it is checked less."""
    facts = dict(objects([guard])[0])
    drops = plain(facts["drops"])
    said = facts["why"] or (f"dropped {drops}" if drops else "")
    return f"{plain(facts['by'])} ({plain(said)})" if said else plain(facts["by"])


def _certificate(answer: Json) -> str:
    """Until when it is valid; in a cluster that is well, always for a while."""
    left, day = answer["certificate_expiry_seconds"], plain(answer["certificate_expires"])[:10]
    if not isinstance(left, int | float) or left <= 0:
        return f"expired {day}"
    return f"valid until {day} ({remaining(left)})"


def _split_ledger(ledger: object) -> tuple[str, str]:
    counts = dict(objects([ledger])[0])
    drops = counts.pop("drops", None)
    return plain(counts), plain(drops)


def _nonzero(counts: object) -> str:
    (found,) = objects([counts])
    return plain({key: count for key, count in found.items() if count})


def _both(answer: Json, *keys: str) -> str:
    return ", ".join(plain(answer[key]) for key in keys if answer[key] is not None)
