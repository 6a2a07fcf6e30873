"""`muslin authority`: the keys that make members, on the node that holds them."""

from __future__ import annotations

import sys
from typing import Final

import click

from node.cli.context import Invocation, doing, pass_invocation, state_option
from node.control.schema import ControlError
from node.errors import NodeError

UNLOCK_TIMEOUT: Final = 30.0
"""Seconds; the passphrase is stretched, which takes a moment, and more on a busy machine."""

passphrase_file = click.option(
    "--passphrase-file",
    metavar="FILE|-",
    help="Read the passphrase from a file's first line.  [default: ask on the terminal]",
)


@click.group(
    no_args_is_help=False,
    epilog="""\b
Examples:
  muslin authority protect
  muslin authority unlock""",
)
@state_option()
def authority() -> None:
    """Protect the authority's key with a passphrase, and unlock it."""


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
    epilog="""\b
Examples:
  muslin authority protect
  muslin authority protect --passphrase-file /run/keys/new --old-passphrase-file /run/keys/old
  muslin authority protect --remove

\b
Backups of authority.key that were made before keep the passphrase that they had, or none."""
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
