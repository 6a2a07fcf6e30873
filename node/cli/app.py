"""The `muslin` command: finds the verb, prints errors in one line, picks the exit code.

Modules of verbs are imported when one of their verbs is used; the overview of `muslin --help` comes
from the table below. Asking a running daemon must not cost the import of netlink and cryptography.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Final, NamedTuple

import click

from node.cli.context import CliError, Invocation, state_option
from node.errors import clauses

OK: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it


class Verb(NamedTuple):
    """Where a verb lives, and what the overview says of it."""

    module: str
    attribute: str
    help: str


VERBS: Final = {
    "init": Verb("node.cli.membership", "init", "Start a cluster."),
    "token": Verb("node.cli.token", "token", "Print a join token; list them, revoke one."),
    "cert": Verb("node.cli.cert", "cert", "Make nodes by hand, renew and show certificates."),
    "authority": Verb(
        "node.cli.authority", "authority", "Change whom the cluster trusts; protect the keys."
    ),
    "join": Verb("node.cli.membership", "join", "Join a cluster with a token."),
    "up": Verb("node.cli.up", "up", "Run the daemon."),
    "leave": Verb("node.cli.membership", "leave", "Hand all blocks back, tell the others, stop."),
    "remove": Verb("node.cli.membership", "remove", "Declare a node dead for ever."),
    "status": Verb("node.cli.get", "status", "Say whether this node is well, and if not, why."),
    "doctor": Verb("node.cli.doctor", "doctor", "Compare all machines; name the odd one out."),
    "metrics": Verb("node.cli.metrics", "metrics", "Print this node's figures for monitoring."),
    "get": Verb("node.cli.get", "get", "List nodes, pods, routes, sessions or blocks."),
    "pod": Verb("node.cli.pod", "pod", "Attach a network namespace to the pod network."),
    "exec": Verb("node.cli.pod", "execute", "Run a command inside a pod's namespace."),
    "cni": Verb("node.cli.cni", "cni", "Install the plugin for container runtimes."),
    "ping": Verb("node.cli.ping", "ping", "Reach something through the overlay, leg by leg."),
    "ipam": Verb(
        "node.cli.ipam", "ipam", "Check this node's addresses; settle an identity in doubt."
    ),
    "bench": Verb("node.cli.bench", "bench", "Measure the way to a pod or node; say what limits."),
    "lab": Verb("node.cli.lab", "lab", "Run a whole cluster on this machine, in namespaces."),
    "sim": Verb("node.cli.sim", "sim", "Run a simulated cluster from a scenario, on virtual time."),
}


class LazyGroup(click.Group):
    """A group that imports a verb's module when the verb is used."""

    def list_commands(self, _: click.Context) -> list[str]:
        """The verbs in the order of a cluster's life."""
        return list(VERBS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        """The verb's command, imported now."""
        verb = VERBS.get(name)
        if verb is None:
            return None
        command: click.Command = getattr(import_module(verb.module), verb.attribute)
        return command

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """The overview, without importing anything."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])


def _show_version(context: click.Context, _: click.Parameter, wanted: object) -> None:
    if wanted:
        from node.version import software_version  # noqa: PLC0415 - 20 ms that only this needs

        click.echo(f"muslin {software_version()}")
        context.exit()


@click.command(
    cls=LazyGroup,
    no_args_is_help=False,
    subcommand_metavar="VERB ...",
    epilog="""\b
Examples:
  muslin init --cidr 10.244.0.0/16      start a cluster on this machine
  muslin up                             run its daemon
  muslin token                          print what another machine needs to join
  muslin lab up --nodes 3 --pods 2      or try it all on this one""",
)
@state_option(from_environment=True)
@click.option(
    "--version", is_flag=True, expose_value=False, callback=_show_version, help="Show the version."
)
def cli() -> None:
    """A flat pod network in userspace: every pod reaches every pod, encrypted, without NAT."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    _open_streams()
    try:
        code = _run(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        return OK  # the reader has seen enough
    except OSError as error:
        _forget_stdout()
        _complain(CliError("cannot write the answer", clauses(error)[1]))
        return FAILED
    return code


def _open_streams() -> None:
    """Give a standard stream that was closed by the caller the null device.

    Python has None for it, which nothing can be read from or written to; and the next file or
    socket that is opened would become standard output.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Takes the lowest free number, which is its own; open as long as the process.
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def _forget_stdout() -> None:
    # Python flushes stdout once more at exit, which would fail again; give it somewhere to go.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    # Not `cli.main`: it has ideas of its own about closed pipes and Ctrl-C.
    try:
        context = cli.make_context("muslin", arguments or ["--help"], obj=Invocation())
        with context:
            code = cli.invoke(context)
        return code if isinstance(code, int) else OK
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.UsageError as error:
        _complain(CliError("wrong usage", _clause(error), _see_help(error)))
        return WRONG_USAGE
    except CliError as error:
        _complain(error)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _complain(error: CliError) -> None:
    with suppress(OSError):  # nobody can be told that nobody can be told
        sys.stderr.write(f"muslin: {' '.join(str(error).split())}\n")


def _clause(error: click.UsageError) -> str:
    text = error.format_message().rstrip(".")
    return text[:1].lower() + text[1:]


def _see_help(error: click.UsageError) -> str:
    return f"see {error.ctx.command_path} --help" if error.ctx else ""
