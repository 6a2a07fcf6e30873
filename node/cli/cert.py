"""`muslin cert`: certificates by hand, for machines that reach no member yet, and to look at."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Final

import click

from node.cli.context import (
    Invocation,
    Json,
    doing,
    next_steps,
    pass_invocation,
    read_line,
    state_option,
)
from node.cli.output import duration, grouped, plain, to_json, to_yaml
from node.control.params import parse_routes
from node.control.schema import ControlError
from node.errors import NodeError
from overlay.errors import ConfigError, RefusedError

if TYPE_CHECKING:
    from overlay.wire.offline import Grant

DAY: Final = 86_400.0
FINGERPRINT_DIGITS: Final = 32


def fingerprint(text: str) -> bytes:
    """A fingerprint as it is typed or pasted: 32 hex digits, with anything between the groups.

    Raises:
        click.BadParameter: it is none. Nothing else.

    >>> fingerprint("3FA2-c81d 00ff:00ff" * 2).hex()
    '3fa2c81d00ff00ff3fa2c81d00ff00ff'
    """
    digits = re.sub(r"[-: ]", "", text)
    if not re.fullmatch(rf"[0-9a-fA-F]{{{FINGERPRINT_DIGITS}}}", digits):
        raise click.BadParameter(
            f"{text[:64]!r} is not a fingerprint: it has {FINGERPRINT_DIGITS} hex digits"
        )
    return bytes.fromhex(digits)


@click.group(
    no_args_is_help=False,
    epilog="""\b
Examples:
  new$  muslin cert request --name vm4 > request
  auth$ muslin cert sign - < request > certificate
  new$  muslin cert install - --authority 3fa2-c81d-... < certificate
  new$  muslin up""",
)
@state_option()
def cert() -> None:
    """Make nodes and renew certificates by hand, without a network; show what certificates say."""


@cert.command(
    epilog="""\b
Examples:
  muslin cert request > request
  muslin cert request --name vm4

\b
On a new machine the keys are kept in the state folder, which then waits for its certificate. Asked
again, it prints the same request. On a node it asks for another certificate over the same keys."""
)
@click.option("--name", metavar="NAME", help="Name of the node.  [default: the host's name]")
@state_option()
@pass_invocation
def request(invocation: Invocation, name: str | None) -> int:
    """Print a request for a certificate: one line, no secret.

    The fingerprint on stderr is for whoever signs it: it must be the same there.
    """
    from node import privileges, requesting  # noqa: PLC0415 - cryptography: 0.2 s

    with doing("cannot ask for a certificate"):
        privileges.keep_secrets()
        asked = requesting.request(invocation.folder, name, os.urandom)
    click.echo(str(asked))
    click.echo(
        f"request for {asked.name}, fingerprint {grouped(asked.fingerprint.hex())}", err=True
    )
    return 0


@cert.command(
    short_help="Sign REQUEST where the authority's key is.",
    epilog="""\b
Examples:
  muslin cert sign - < request > certificate
  muslin cert sign muslin-request1-... --days 30
  muslin cert sign - --route 192.168.7.0/24 --route 2001:db8:7::/48 < request

\b
Compare before you hand the certificate on: the request's fingerprint with what muslin cert request
printed on the new machine. Somebody may have sent you a request of his own.""",
)
@click.argument("request")
@click.option("--days", metavar="N", type=click.IntRange(1, 3650), help="How long it is valid.")
@click.option(
    "--route",
    "routes",
    metavar="PREFIX|none",
    multiple=True,
    help="An outside route that the node may advertise.  [default: those it may already]",
)
@click.option(
    "--passphrase-file",
    metavar="FILE|-",
    help="Passphrase of the authority's key, where no daemon runs.",
)
@state_option()
@pass_invocation
def sign(
    invocation: Invocation,
    request: str,
    days: int | None,
    routes: tuple[str, ...],
    passphrase_file: str | None,
) -> int:
    """Sign REQUEST ("-": read it) where the authority's key is; print the certificate, one line.

    Only the machine that made the request can read it, so it may travel over anything. Works
    whether the daemon runs or not, and needs no network.
    """
    if request == passphrase_file == "-":
        raise click.UsageError("REQUEST and --passphrase-file cannot both be standard input")
    lifetime = None if days is None else days * DAY
    allowed = None if not routes else [] if routes == ("none",) else list(routes)
    with doing("cannot sign the request"):
        parse_routes(allowed or [])  # a flag that is wrong, whatever the daemon says
        line = read_line(request)
        answer = _ask_to_sign(invocation, line, lifetime, allowed, passphrase_file or "")
    click.echo(plain(answer["certificate"]))
    asked, pin = grouped(answer["fingerprint"]), grouped(answer["authority"])
    click.echo(f"for {answer['name']}: compare its request's fingerprint, {asked}", err=True)
    click.echo(f"next, there: muslin cert install - --authority {pin}", err=True)
    return 0


def _ask_to_sign(
    invocation: Invocation,
    line: str,
    lifetime: float | None,
    routes: list[str] | None,
    passphrase_file: str,
) -> Json:
    """Ask the daemon; where none runs, do it here."""
    try:
        return invocation.ask("cert.sign", request=line, lifetime=lifetime or 0, routes=routes)
    except ControlError as error:
        if error.code != "not-running":
            raise
    from node import privileges, signing  # noqa: PLC0415 - the engine: 0.4 s
    from node.config import load_config  # noqa: PLC0415
    from node.control.certificates import present_request  # noqa: PLC0415
    from node.identity import load_node  # noqa: PLC0415
    from node.sealed import configured_passphrase  # noqa: PLC0415

    privileges.keep_secrets()
    folder = invocation.folder
    pin = load_node(folder).fingerprint
    try:
        certificate = signing.sign_here(
            folder,
            load_config(folder.config, os.environ),
            line,
            lifetime=lifetime,
            routes=None if routes is None else parse_routes(routes),
            passphrase=configured_passphrase(passphrase_file),
        )
    except RefusedError as refused:
        if refused.code != "authority-locked":
            raise
        fix = "no daemon runs here to be told the passphrase: say it with --passphrase-file"
        raise RefusedError(refused.code, str(refused), fix) from refused
    return {"certificate": certificate, **present_request(line, pin)}


@cert.command(
    short_help="Install CERTIFICATE, the answer to the request.",
    epilog="""\b
Examples:
  muslin cert install - --authority 3fa2-c81d-0b7e-99d4-1c55-e0aa-72f1-8b3c < certificate
  muslin cert request | ssh vm1 muslin cert sign - | muslin cert install -

\b
The fingerprint is what muslin init and muslin cert show print on the authority's node. Get it by
another way than the certificate: everybody who has seen the request can make a certificate that
fits it, of a cluster of his own. So install never shows the one that came with the certificate.""",
)
@click.argument("certificate")
@click.option(
    "--authority",
    "pinned",
    metavar="FINGERPRINT",
    type=fingerprint,
    help="Of the cluster's authorities; needed on a new machine.",
)
@state_option()
@pass_invocation
def install(invocation: Invocation, certificate: str, pinned: bytes | None) -> int:
    """Install CERTIFICATE ("-": read it), the answer to this machine's request.

    A new machine is a node then: muslin up starts it. A node uses the certificate from then on,
    whether its daemon runs or not; it needs no fingerprint.
    """
    from node import privileges, requesting  # noqa: PLC0415 - cryptography: 0.2 s

    folder = invocation.folder
    with doing("cannot install the certificate"):
        privileges.keep_secrets()
        line, new = read_line(certificate), requesting.is_waiting(folder)
        if new and pinned is None:
            raise ConfigError(
                "needed: muslin cert show prints it on the authority's node", "--authority"
            )
        if new:
            granted = requesting.install_new(folder, line, pinned=pinned or b"", wall=time.time())
        else:
            granted = requesting.open_renewal(folder, line, pinned=pinned, wall=time.time())
            _install_renewal(invocation, granted)
    made = granted.certificate
    if not new:
        click.echo(f"node {made.name} uses the certificate with serial {made.serial} from now on")
        return 0
    click.echo(f"this is node {made.name} of cluster {made.cluster.hex()}")
    click.echo(f"keys and certificate are in {folder.path}")
    next_steps(invocation, "up")
    return 0


def _install_renewal(invocation: Invocation, granted: Grant) -> None:
    """Hand the certificate to the daemon; where none runs, store it."""
    from node import requesting  # noqa: PLC0415 - cryptography: 0.2 s
    from node.identity import load_node  # noqa: PLC0415
    from overlay.offline import knows_list  # noqa: PLC0415

    try:
        if not knows_list(granted, load_node(invocation.folder).state.items):
            invocation.ask("status")  # raises where no daemon runs: then it is installed here
            why = "the authorities have changed since this node heard of them last"
            raise NodeError(why, "stop muslin up, install it again, start muslin up", "new-list")
        invocation.ask("cert.install", certificate=granted.certificate.encode().hex())
    except ControlError as error:
        if error.code != "not-running":
            raise
        requesting.install_renewal(invocation.folder, granted, wall=time.time())


@cert.command(
    short_help="Show what the certificate of a node says.",
    epilog="""\b
Examples:
  muslin cert show
  muslin cert show vm2
  muslin cert show -o json | jq .not_after""",
)
@click.argument("node", required=False)
@click.option("-o", "--output", type=click.Choice(("json", "yaml")), help="For programs.")
@state_option()
@pass_invocation
def show(invocation: Invocation, node: str | None, output: str | None) -> int:
    """Show what the certificate of NODE says; this node's without NODE, or with "own".

    AUTHORITY is the fingerprint of the cluster's authorities, for muslin cert install.
    """
    with doing("cannot show the certificate"):
        shown = _shown(invocation, None if node == "own" else node)
    match output:
        case "json":
            click.echo(to_json(shown))
        case "yaml":
            click.echo(to_yaml(shown))
        case _:
            click.echo(_text(shown))
    return 0


def _shown(invocation: Invocation, node: str | None) -> Json:
    try:
        return invocation.ask("cert.show", node=node)
    except ControlError as error:
        if error.code != "not-running" or node is not None:
            raise
    from node.control.certificates import present_certificate  # noqa: PLC0415 - cryptography
    from node.identity import load_node  # noqa: PLC0415
    from overlay.renewal import present_identity  # noqa: PLC0415

    stored = load_node(invocation.folder)
    present = present_identity(stored.identity, stored.state.certificate).certificate
    return present_certificate(present, stored.fingerprint, time.time())


def _text(shown: Json) -> str:
    remaining = shown["remaining"]
    left = remaining if isinstance(remaining, int | float) else 0.0
    rows = [
        ("name", plain(shown["name"])),
        ("id", plain(shown["id"])),
        ("cluster", plain(shown["cluster"])),
        ("serial", plain(shown["serial"])),
        ("issuer", grouped(shown["issuer"])),
        ("from", plain(shown["not_before"])),
        ("until", f"{plain(shown['not_after'])} ({_remaining(left)})"),
        ("routes", plain(shown["routes"]) or "none"),
        ("authority", grouped(shown["authority"])),
    ]
    return "\n".join(f"{key:<11}{value}" for key, value in rows)


def _remaining(seconds: float) -> str:
    return f"{duration(seconds)} left" if seconds > 0 else f"over for {duration(-seconds)}"
