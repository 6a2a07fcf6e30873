"""`muslin authority`: whom the cluster trusts to make members, and the keys for that."""

from __future__ import annotations

import sys
from typing import Final

import click

from node.cli.columns import Column, Kind, render, since
from node.cli.context import Invocation, doing, next_steps, pass_invocation, state_option
from node.cli.output import FORMATS, grouped, plain
from node.control.schema import ControlError
from node.errors import NodeError

SHOWN_DIGITS: Final = 8
"""Of a public key in the table, and what is enough to name it."""

UNLOCK_TIMEOUT: Final = 30.0
"""Seconds; the passphrase is stretched, which takes a moment, and more on a busy machine."""

passphrase_file = click.option(
    "--passphrase-file",
    metavar="FILE|-",
    help="Read the passphrase from a file's first line.  [default: ask on the terminal]",
)


def _given(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """A variable of a script that is not set must not become a new key that everybody trusts."""
    if value is not None and not value.strip():
        raise click.BadParameter("it is empty")
    return value


@click.group(
    no_args_is_help=False,
    epilog="""\b
Examples:
  muslin authority list
  muslin authority unlock

\b
To put another authority in place of the present one, without a gap:
  muslin authority install --new        a new key on this node; all members trust it from then on
  muslin authority use KEY              certificates are renewed by it, in minutes
  muslin authority list                 wait until the old one has no members left
  muslin authority remove OLD           for ever""",
)
@state_option()
def authority() -> None:
    """Change whom the cluster trusts to make members; keep the keys for that safe."""


AUTHORITIES: Final = Kind(
    names=("authorities", "authority"),
    name_of=lambda item: (plain(item["key"]),),
    columns=(
        Column("key", "key", lambda key: plain(key)[:SHOWN_DIGITS]),
        Column("state", "state"),
        Column("here", "here", lambda here: "yes" if here else "no"),
        Column("members", "members", lambda members: str(len(objects_of(members)))),
        Column("age", "since", since),
        Column("whole key", "key", wide=True),
        Column("fingerprint", "fingerprint", grouped, wide=True),
        Column("certified", "members", wide=True),
    ),
)


def objects_of(value: object) -> list[object]:
    """A list inside an answer; anything else is an empty one."""
    return value if isinstance(value, list) else []


@authority.command(
    "list",
    short_help="List the authorities, removed ones as well.",
    epilog="""\b
Examples:
  muslin authority list -o wide
  muslin authority list -o json

\b
The states:
  in-use    signs new certificates
  trusted   what it signs counts
  removed   what it signed is worth nothing
HERE says whether this node has the private key; MEMBERS, how many have certificates by it;
AGE, since when it has been in that state.""",
)
@click.option(
    "-o", "--output", type=click.Choice(FORMATS), help="Something else than the usual table."
)
@state_option()
@pass_invocation
def list_authorities(invocation: Invocation, output: str | None) -> int:
    """List the authorities of the cluster, those that were removed as well."""
    with doing("cannot list the authorities"):
        found = invocation.ask_list("authority.list")
    click.echo(render(AUTHORITIES, found, output))
    return 0


@authority.command(
    short_help="Trust another authority, a new one or PUBLIC.",
    epilog="""\b
Examples:
  muslin authority install --new
  muslin authority install 5b1f0c...     the whole public key, made on another node""",
)
@click.argument("public", required=False, callback=_given)
@click.option("--new", is_flag=True, help="Make a new key on this node.  [default]")
@click.option(
    "--passphrase-file",
    metavar="FILE|-",
    help="Passphrase of the keys on this node, if they have one; with none here, of the new key.",
)
@state_option()
@pass_invocation
def install(
    invocation: Invocation, public: str | None, passphrase_file: str | None, *, new: bool
) -> int:
    """Have the cluster trust another authority, PUBLIC or a new one, beside the present one.

    On a node that holds no trusted authority's key, the new key is made and not installed: its
    public half is printed, to be installed where the present authority is.
    """
    if new and public is not None:
        raise click.UsageError("give PUBLIC or --new, not both")
    with doing("cannot install the authority"):
        words = None if passphrase_file is None else _passphrase(passphrase_file, "Passphrase")
        answer = invocation.ask(
            "authority.install", patience=UNLOCK_TIMEOUT, key=public, passphrase=words
        )
    key = plain(answer["key"])
    if answer["installed"]:
        click.echo(f"the cluster trusts authority {key}")
        next_steps(invocation, f"authority use {key[:SHOWN_DIGITS]}")
    else:
        click.echo(f"made the key of authority {key}; nobody trusts it yet")
        click.echo(f"next, where the present one is: muslin authority install {key}", err=True)
    return 0


@authority.command(
    short_help="Have authority KEY sign new certificates.",
    epilog="""\b
Example:
  muslin authority use 5b1f0c2e""",
)
@click.argument("key", callback=_given)
@state_option()
@pass_invocation
def use(invocation: Invocation, key: str) -> int:
    """Have authority KEY sign new certificates; every member renews its own within minutes."""
    with doing(f"cannot use authority {key}"):
        answer = invocation.ask("authority.use", key=key)
    click.echo(f"authority {plain(answer['key'])[:SHOWN_DIGITS]} signs certificates from now on")
    next_steps(invocation, "authority list")
    return 0


@authority.command(
    short_help="Trust authority KEY no more, for ever.",
    epilog="""\b
Examples:
  muslin authority remove 91d0aa37
  muslin authority remove 91d0aa37 --force""",
)
@click.argument("key", callback=_given)
@click.option("--force", is_flag=True, help="Also if members have certificates by it still.")
@state_option()
@pass_invocation
def remove(invocation: Invocation, key: str, *, force: bool) -> int:
    """Trust authority KEY no more, for ever: certificates by it are worth nothing from then on.

    Refused while it is in use, and while members would be cut off by it.
    """
    with doing(f"cannot remove authority {key}"):
        answer = invocation.ask("authority.remove", key=key, force=force)
    click.echo(f"authority {plain(answer['key'])[:SHOWN_DIGITS]} is trusted no more")
    return 0


@authority.command(
    epilog="""\b
Examples:
  muslin authority unlock
  muslin authority unlock --passphrase-file /run/keys/muslin"""
)
@passphrase_file
@state_option()
@pass_invocation
def unlock(invocation: Invocation, passphrase_file: str | None) -> int:
    """Tell the running daemon the passphrase of the authority's key.

    Until then it admits, removes and renews nobody; packets flow all the same. The key is locked
    again when the daemon starts again, unless that has --passphrase-file.
    """
    with doing("cannot unlock the authority's key"):
        words = _passphrase(passphrase_file, "Passphrase")
        answer = invocation.ask("authority.unlock", patience=UNLOCK_TIMEOUT, passphrase=words)
    was = "" if answer["was_locked"] else " (it was not locked)"
    click.echo(f"the authority's key is unlocked{was}")
    return 0


@authority.command(
    short_help="Set, change or remove the passphrase of the key.",
    epilog="""\b
Examples:
  muslin authority protect
  muslin authority protect --passphrase-file /run/keys/new --old-passphrase-file /run/keys/old
  muslin authority protect --remove

\b
Backups of authority.key that were made before keep the passphrase that they had, or none.""",
)
@passphrase_file
@click.option(
    "--old-passphrase-file", metavar="FILE|-", help="The same for the one it has at present."
)
@click.option("--remove", is_flag=True, help="Store the key without a passphrase.")
@state_option()
@pass_invocation
def protect(
    invocation: Invocation,
    passphrase_file: str | None,
    old_passphrase_file: str | None,
    *,
    remove: bool,
) -> int:
    """Set, change or remove the passphrase of the authority's key, whether the daemon runs or not.

    The daemon goes on using the key, and asks for the passphrase when it starts again.
    """
    if remove and passphrase_file is not None:
        raise click.UsageError("--remove takes no --passphrase-file")
    from node import authority_keys, privileges  # noqa: PLC0415 - cryptography: 0.2 s

    with doing("cannot protect the authority's key"):
        privileges.keep_secrets()
        folder = invocation.folder
        sealed = authority_keys.check_here(folder)
        old = _passphrase(old_passphrase_file, "Present passphrase") if sealed else None
        new = None if remove else _passphrase(passphrase_file, "New passphrase", again=True)
        try:
            words = {"old": old, "new": new}
            invocation.ask("authority.protect", patience=UNLOCK_TIMEOUT, **words)
        except ControlError as error:
            if error.code != "not-running":
                raise
            with folder.locked():
                authority_keys.protect(folder, old, new)
    click.echo(
        "the authority's key has no passphrase now"
        if remove
        else "the authority's key is under that passphrase now; keep it, there is no other way in"
    )
    return 0


def _passphrase(file: str | None, prompt: str, *, again: bool = False) -> str:
    """From a file, or from the terminal without an echo."""
    from node.sealed import check_passphrase, read_passphrase  # noqa: PLC0415 - cryptography

    if file is not None:
        return read_passphrase(file)
    if not sys.stdin.isatty():
        fix = "use --passphrase-file FILE, or - to read it from standard input"
        raise NodeError("no terminal to ask for a passphrase", fix, "no-terminal")
    words: str = click.prompt(
        prompt, hide_input=True, confirmation_prompt=again, err=True, default="", show_default=False
    )
    return check_passphrase(words)
