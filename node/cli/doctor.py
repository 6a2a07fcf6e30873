"""`muslin doctor`: what is odd among the machines of the cluster."""

from __future__ import annotations

import click

from node.cli.context import (
    Finite,
    Invocation,
    Json,
    doing,
    objects,
    pass_invocation,
    state_option,
)
from node.cli.output import plain, table, to_json
from node.cli.progress import Progress

MARGIN = 10.0
"""Seconds that the daemon may need beyond the time that members have."""


@click.command(
    epilog="""\b
Examples:
  muslin doctor
  muslin doctor --timeout 20            in a large cluster, or a slow one
  muslin doctor -o json | jq '.[] | select(.state == "odd")'"""
)
@click.option(
    "--timeout",
    type=Finite(0.1, 60.0),
    default=3.0,
    show_default=True,
    help="Seconds that members have to answer.",
)
@click.option("-o", "--output", type=click.Choice(("json",)), help="For programs.")
@state_option()
@pass_invocation
def doctor(invocation: Invocation, timeout: float, output: str | None) -> int:
    """Compare versions, clocks, kernel settings, ranges, MTUs and offloads of all nodes.

    Exit 0: nothing is odd; 1: something is, and it is named. A note is a difference that does no
    harm. What another node says of its machine is its word.
    """
    with doing("cannot examine the cluster"), Progress("asking every node"):
        answer = invocation.ask("doctor", patience=timeout + MARGIN, timeout=timeout)
        findings = objects(answer["findings"])
    rows = [_row(finding) for finding in findings]
    shown = table(["check", "state", "nodes", "what", "fix"], rows)
    click.echo(to_json(findings) if output == "json" else shown)
    return 1 if any(finding["state"] == "odd" for finding in findings) else 0


def _row(finding: Json) -> list[str]:
    nodes = finding["nodes"]
    named = ",".join(map(str, nodes)) if isinstance(nodes, list) else ""
    values = (finding["check"], finding["state"], named, finding["what"], finding["fix"])
    return [plain(value) or "-" for value in values]
