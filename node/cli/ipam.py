"""`muslin ipam check`, `muslin ipam release` and `muslin ipam claim`."""

from __future__ import annotations

from ipaddress import ip_address

import click

from node.cli.context import (
    CliError,
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
  muslin ipam release 10.244.1.5
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
        findings, reserved = objects(answer["findings"]), objects(answer["reserved"])
    shown = [*findings, *map(_as_note, reserved)]
    click.echo(to_json(shown) if output == "json" else _text(findings, reserved))
    return 1 if any(not finding["fixed"] for finding in findings) else 0


def _as_note(held: Json) -> Json:
    """A reservation in the shape of the findings: nothing is wrong with it."""
    said = {
        "code": "address-reserved",
        "what": f"{plain(held['address'])} is reserved by {plain(held['owner'])}",
        "why": f"pod {plain(held['pod'])} has it" if held["pod"] else "for a pod to come",
        "fix": "",
        "frees": None,
        "fixed": False,
    }
    return said | held


def _address(_: click.Context, __: click.Parameter, text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not an address") from error


def _text(findings: list[Json], reserved: list[Json]) -> str:
    found = "nothing is leaked or unreachable"
    if findings:
        found = table(["code", "what", "why", "fix"], [_row(finding) for finding in findings])
    if not reserved:
        return found
    keys = ("address", "address6", "owner", "pod", "since")
    rows = [[plain(held[key]) for key in keys] for held in reserved]
    return f"{found}\n\nreserved:\n{table(keys, rows)}"


def _row(finding: Json) -> list[str]:
    fix = f"freed: pod {finding['frees']}" if finding["fixed"] else plain(finding["fix"])
    return [plain(finding["code"]), plain(finding["what"]), plain(finding["why"]), fix]


@ipam.command(
    short_help="Release an address that a runtime has reserved.",
    epilog="""\b
Example:
  muslin ipam release 10.244.1.5""",
)
@click.argument("address", callback=_address)
@state_option()
@pass_invocation
def release(invocation: Invocation, address: str) -> int:
    """Release an address that a container runtime reserved and will not give back itself.

    For a runtime that is not used any more; `muslin ipam check` lists what is reserved. A pod that
    has the address keeps it.
    """
    with doing(f"cannot release {address}"):
        reserved = objects(invocation.ask("ipam.check", patience=CHECK_TIMEOUT)["reserved"])
        held = [one for one in reserved if address in (one["address"], one["address6"])]
        if not held:
            why, fix = "nobody has reserved it", "see what is: muslin ipam check"
            raise CliError(f"cannot release {address}", why, fix)
        invocation.ask("address.release", owner=held[0]["owner"], address=address)
    click.echo(f"{address} is no longer reserved by {held[0]['owner']}")
    return 0


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
