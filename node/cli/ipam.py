"""`muslin ipam check` and `muslin ipam claim`."""

from __future__ import annotations

import click

from node.cli.context import (
    Invocation,
    Json,
    doing,
    objects,
    pass_invocation,
    state_option,
)
from node.cli.output import plain, table, to_json
from node.cli.progress import Progress

CHECK_TIMEOUT = 30.0
"""Each pod's namespace is looked at, and with `--fix` detached."""


@click.group(
    no_args_is_help=False,
    epilog="""\b
Examples:
  muslin ipam check
  muslin ipam claim""",
)
@state_option()
def ipam() -> None:
    """Check the addresses of this node, or settle whose its identity is."""


@ipam.command(
    epilog="""\b
Examples:
  muslin ipam check                what is leaked or unreachable; changes nothing
  muslin ipam check --fix          free the addresses of pods that are gone"""
)
@click.option("--fix", is_flag=True, help="Free what is leaked.")
@click.option("-o", "--output", type=click.Choice(("json",)), help="For programs.")
@state_option()
@pass_invocation
def check(invocation: Invocation, fix: bool, output: str | None) -> int:
    """Say what of this node's addresses is leaked or unreachable. Exit 0 nothing, 1 something.

    Frees nothing without --fix.
    """
    with doing("cannot check the addresses"), Progress("looking at every pod"):
        answer = invocation.ask("ipam.check", patience=CHECK_TIMEOUT, fix=fix)
        findings = objects(answer["findings"])
    click.echo(to_json(findings) if output == "json" else _text(findings))
    return 1 if any(not finding["fixed"] for finding in findings) else 0


def _text(findings: list[Json]) -> str:
    if not findings:
        return "nothing is leaked or unreachable"
    return table(["code", "what", "why", "fix"], [_row(finding) for finding in findings])


def _row(finding: Json) -> list[str]:
    fix = f"freed: pod {finding['frees']}" if finding["fixed"] else plain(finding["fix"])
    return [plain(finding["code"]), plain(finding["what"]), plain(finding["why"]), fix]


@ipam.command(
    short_help="Declare this the only machine of this identity.",
    epilog="""\b
Example:
  muslin ipam claim""",
)
@state_option()
@pass_invocation
def claim(invocation: Invocation) -> int:
    """Declare this the only machine with this node's identity; it hands out addresses again.

    For a node whose status says identity-conflict: its state folder was restored from a backup, or
    runs on two machines. Stop the other machine first.
    """
    with doing("cannot claim the identity"):
        claimed = invocation.ask("ipam.claim")
    click.echo(f"this machine is {claimed['node']}: addresses and blocks are handed out again")
    return 0
