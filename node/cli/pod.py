"""`muslin pod add`, `muslin pod del` and `muslin exec`."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import click

from node.cli.context import (
    CliError,
    CommandInside,
    Invocation,
    doing,
    pass_invocation,
    state_option,
)
from node.cli.output import plain
from node.cli.progress import Progress

ATTACH_TIMEOUT = 30.0
"""Attaching waits for the kernel, which may be busy with many other namespaces."""

_RATE: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([kMGT]?)(?:bit)?", re.ASCII)
_UNITS: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_PORT: Final = re.compile(
    r"(?:(?P<host>[0-9.]+|\[[0-9A-Fa-f:.]+\]):)?(?P<host_port>\d{1,5}):(?P<port>\d{1,5})"
    r"(?:/(?P<protocol>tcp|udp|sctp))?",
    re.ASCII,
)


def _address(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    try:
        return None if text is None else str(ip_address(text))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not an address") from error


def _given(_: click.Context, param: click.Parameter, text: str | None) -> str | None:
    """Not empty: what a script has in a variable that it never set asks for something else."""
    if text is not None and not text:
        raise click.BadParameter("it is empty; leave it out, or say which")
    return text


def _rate(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Bits per second, as people write them.

    >>> _rate(None, None, "1.5M"), _rate(None, None, "800kbit")
    (1500000, 800000)
    """
    if text is None:
        return None
    found = _RATE.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no rate: bits per second, as 800k, 10M or 1.5G")
    return round(float(found[1]) * _UNITS[found[2]])


def _ports(
    _: click.Context, __: click.Parameter, texts: tuple[str, ...]
) -> list[dict[str, object]]:
    """Ports of the node that lead to the pod, as for other runtimes.

    >>> _ports(None, None, ("[::1]:53:5353/udp",))
    [{'protocol': 'udp', 'host_port': 53, 'port': 5353, 'host': '::1'}]
    """
    ports: list[dict[str, object]] = []
    for text in texts:
        found = _PORT.fullmatch(text)
        if found is None:
            raise click.BadParameter(f"{text!r} is not [ADDRESS:]PORT:PORT[/tcp|udp|sctp]")
        ports.append(
            {
                "protocol": found["protocol"] or "tcp",
                "host_port": int(found["host_port"]),
                "port": int(found["port"]),
                "host": (found["host"] or "").strip("[]"),
            }
        )
    return ports


@click.group(
    no_args_is_help=False,
    epilog="""\b
Examples:
  muslin pod add web
  muslin pod del web""",
)
@state_option()
def pod() -> None:
    """Attach a network namespace to the pod network, or detach it."""


@pod.command(
    short_help="Give a namespace an interface in the pod network.",
    epilog="""\b
Examples:
  muslin pod add web                             in a new namespace
  muslin pod add db --netns /run/netns/db        in one that exists
  muslin pod add dns --ip 10.244.1.53            with an address of your choice
  muslin pod add shop --port 8080:80             port 8080 of this node leads to it
  muslin pod add bulk --egress 100M              at most 100 Mbit/s from it""",
)
@click.argument("name", callback=_given)
@click.option(
    "--netns",
    metavar="PATH",
    callback=_given,
    help="Its namespace, a path or a name of `ip netns`.",
)
@click.option(
    "--ip", metavar="ADDR", callback=_address, help="An address inside this node's blocks."
)
@click.option(
    "--interface", metavar="NAME", callback=_given, help="Its interface in the namespace; eth0."
)
@click.option(
    "--port",
    "ports",
    metavar="PORT:PORT",
    multiple=True,
    callback=_ports,
    help="A port of this node that leads to one of the pod's: [ADDR:]8080:80[/udp|/sctp].",
)
@click.option("--ingress", metavar="RATE", callback=_rate, help="Limit towards it, bits/s: 10M.")
@click.option("--egress", metavar="RATE", callback=_rate, help="Limit from it.")
@state_option()
@pass_invocation
def add(invocation: Invocation, /, name: str, netns: str | None, **said: object) -> int:
    """Give a namespace an interface in the pod network, and addresses of this node."""
    if netns and netns.startswith((".", "~")):
        netns = str(Path(netns).expanduser().absolute())
    with doing(f"cannot add pod {name}"), Progress("attaching the pod"):
        added = invocation.ask("pod.add", patience=ATTACH_TIMEOUT, name=name, netns=netns, **said)
    addresses = " ".join(plain(added[key]) for key in ("address", "address6") if added[key])
    click.echo(f"pod {added['name']} added: {addresses} in {added['netns']}")
    return 0


@pod.command(
    name="del",
    epilog="""\b
Example:
  muslin pod del web""",
)
@click.argument("name")
@state_option()
@pass_invocation
def delete(invocation: Invocation, name: str) -> int:
    """Detach a pod of this node and give its addresses back."""
    with doing(f"cannot delete pod {name}"), Progress("detaching the pod"):
        removed = invocation.ask("pod.del", patience=ATTACH_TIMEOUT, name=name)
    click.echo(f"pod {removed['name']} deleted")
    return 0


@click.command(
    name="exec",
    cls=CommandInside,
    context_settings={"ignore_unknown_options": True},
    epilog="""\b
Examples:
  muslin exec web -- ip address
  muslin exec web -- ping -c 3 10.244.2.2""",
)
@state_option()
@click.argument("name", metavar="POD")
@click.argument("command", metavar="-- CMD ...", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_invocation
def execute(invocation: Invocation, name: str, command: tuple[str, ...]) -> int:
    """Run a command inside the namespace of a pod of this node; its exit code is ours."""
    from node.kernel import netns  # noqa: PLC0415 - only this verb enters namespaces

    command = command[1:] if command[0] == "--" else command
    if not command:
        raise click.UsageError("the command to run is missing")
    with doing(what := f"cannot run a command in pod {name}"):
        where = invocation.ask("pod.get", name=name)
        if not where["netns"]:
            raise CliError(what, f"pod {where['name']} is on {where['node']}", "run it there")
        path = plain(where["netns"])
        if not netns.exists(path):
            # `ip netns exec` gives a daemon mounts of its own: look at the path with its eyes.
            seen = f"/proc/{invocation.ask('status')['pid']}/root{path}"
            path = seen if netns.exists(seen) else path
        netns.execute(path, command)
