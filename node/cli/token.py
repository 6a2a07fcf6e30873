"""`muslin token`: make, list and revoke join tokens, on the node that holds the authority's key."""

from __future__ import annotations

import sys
from typing import Final

import click
from click.core import ParameterSource

from node.cli.columns import Column, Kind, render, since
from node.cli.context import (
    Invocation,
    Json,
    doing,
    pass_invocation,
    read_line,
    seconds,
    state_option,
)
from node.cli.output import FORMATS, duration, plain
from node.control.params import parse_routes, wrong_ttl

SHOWN_DIGITS: Final = 8
"""Of an id in the table. Two of 10,000 tokens that begin alike are refused as ambiguous."""


def _ttl(given: str) -> float:
    ttl = seconds(given)
    if why := wrong_ttl(ttl):
        raise click.BadParameter(f"it {why}")
    return ttl


@click.group(
    invoke_without_command=True,
    no_args_is_help=False,
    epilog="""\b
Examples:
  muslin token
  muslin token --ttl 15m
  muslin token --route 192.168.7.0/24 --route 2001:db8:7::/48
  muslin token list
  muslin token revoke 3fa2c81d""",
)
@click.option(
    "--ttl",
    type=_ttl,
    metavar="TIME",
    default="1h",
    show_default=True,
    help="How long it can be used.",
)
@click.option(
    "--route",
    "routes",
    metavar="PREFIX",
    multiple=True,
    help="A network behind the node that it may advertise.",
)
@state_option()
@click.pass_context
@pass_invocation
def token(
    invocation: Invocation, context: click.Context, ttl: float, routes: tuple[str, ...]
) -> int:
    """Print a join token, good for one node; or list them, or revoke one.

    Without a verb behind it: nothing but the token is on stdout; keep it secret.
    """
    if context.invoked_subcommand is not None:
        for option in ("ttl", "routes"):
            if context.get_parameter_source(option) is not ParameterSource.DEFAULT:
                flag = f"--{option.removesuffix('s')}"
                raise click.UsageError(f"{flag} is not for token {context.invoked_subcommand}")
        return 0
    with doing("cannot make a token"):
        parse_routes(list(routes))  # a flag that is wrong, whatever the daemon says
        answer = invocation.ask("token", ttl=ttl, routes=list(routes))
    click.echo(plain(answer["token"]))
    if sys.stderr.isatty():
        click.echo(f"muslin: good for one node, for {duration(ttl)}", err=True)
    return 0


def _short(identifier: object) -> str:
    return plain(identifier)[:SHOWN_DIGITS]


TOKENS: Final = Kind(
    names=("tokens", "token"),
    name_of=lambda item: (plain(item["id"]),),
    columns=(
        Column("id", "id", _short),
        Column("state", "state"),
        Column("expires", "expires"),
        Column("node", "node"),
        Column("age", "made", since),
        Column("whole id", "id", wide=True),
        Column("made", "made", wide=True),
        Column("routes", "routes", wide=True),
    ),
)


@token.command(
    "list",
    epilog="""\b
Examples:
  muslin token list
  muslin token list -o json

\b
The states:
  unused    admits one node until it expires
  used      has admitted NODE
  expired   nobody came in time
  revoked   was taken back; a NODE beside it had used it before""",
)
@click.option(
    "-o", "--output", type=click.Choice(FORMATS), help="Something else than the usual table."
)
@state_option()
@pass_invocation
def list_tokens(invocation: Invocation, output: str | None) -> int:
    """List the join tokens, until a day after they expire. Their secrets are not shown again."""
    with doing("cannot list the tokens"):
        tokens = invocation.ask_list("token.list")
    if text := render(TOKENS, tokens, output):
        click.echo(text)
    return 0


@token.command(
    epilog="""\b
Examples:
  muslin token revoke 3fa2c81d
  muslin token revoke - < leaked-token"""
)
@click.argument("id")
@state_option()
@pass_invocation
def revoke(invocation: Invocation, id: str) -> int:  # noqa: A002 - as users see it
    """Let the token ID admit nobody any more.

    ID is what `muslin token list` shows, or as many of its first digits as no other token has.
    The token itself will do as well; with "-" it is read from standard input, where nobody else
    sees it. A node that has used the token stays a member: `muslin remove NODE` ends that.
    """
    with doing("cannot revoke the token"):
        before = invocation.ask("token.revoke", id=_id_of(read_line(id)))
    click.echo(_revoked(before))
    return 0


def _id_of(given: str) -> str:
    """The id of a whole token: its secret goes nowhere."""
    if not given.startswith("muslin"):
        return given
    from overlay.wire.token import JoinToken  # noqa: PLC0415 - cryptography: 0.2 s

    return JoinToken.parse(given).id.hex()


def _revoked(before: Json) -> str:
    shown, node = _short(before["id"]), plain(before["node"])
    if node:
        return (
            f"revoked token {shown}, but {node} had used it before and stays a member: "
            f"muslin remove {node} ends that"
        )
    match before["state"]:
        case "expired":
            return f"revoked token {shown}; it had expired before"
        case "revoked":
            return f"token {shown} was revoked before"
        case _:
            return f"revoked token {shown}: it admits nobody any more"
