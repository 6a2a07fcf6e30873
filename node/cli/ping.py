"""`muslin ping`: reach something through the overlay, and say which part of the way failed.

A packet to a pod of another node goes over two legs, and each is tried on its own:

    this daemon ==(overlay leg: a probe inside the session)==> far daemon
    this kernel --(pod leg: an ICMP echo, like any program's)--> TUN ==> far TUN --> pod

An overlay leg that fails is about nodes and the underlay; a pod leg that fails alone is about
kernels, namespaces and the pod itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

import click

from node.cli.context import (
    CliError,
    Finite,
    Invocation,
    Json,
    doing,
    objects,
    pass_invocation,
    state_option,
)
from node.cli.output import milliseconds, plain

INTERVAL: Final = 1.0
MARGIN: Final = 10.0
"""The daemon answers a round within its timeout; this much later something is wrong with it."""


@dataclass(slots=True)
class Tally:
    """What came back over one leg."""

    leg: str
    to: str
    sent: int = 0
    rtts: list[float] = field(default_factory=list)

    def line(self) -> str:
        """The summary of the leg."""
        text = f"{self.leg} leg to {self.to}: {self.sent} sent, {len(self.rtts)} answered"
        if self.rtts:
            mean = sum(self.rtts) / len(self.rtts)
            spread = "/".join(map(milliseconds, (min(self.rtts), mean, max(self.rtts))))
            text += f", min/avg/max {spread}"
        return text


@click.command(
    epilog="""\b
Examples:
  muslin ping node2
  muslin ping web -c 10
  muslin ping node2/web -6
  muslin ping 10.244.2.2"""
)
@click.argument("target", metavar="POD|NODE|ADDRESS")
@click.option("-c", "--count", type=click.IntRange(1), default=4, show_default=True, help="Rounds.")
@click.option(
    "-W",
    "--timeout",
    type=Finite(0.05, 30.0),
    default=1.0,
    show_default=True,
    help="Seconds to wait in each round.",
)
@click.option("-4", "version", flag_value=4, type=int, help="Its IPv4 address.")
@click.option("-6", "version", flag_value=6, type=int, help="Its IPv6 address.")
@state_option()
@pass_invocation
def ping(
    invocation: Invocation, target: str, count: int, timeout: float, version: int | None
) -> int:
    """Reach a pod, a node or an address; say whether it is direct, and which leg failed."""
    tallies: dict[str, Tally] = {}
    answer: Json = {}
    with doing(f"cannot ping {target}"):
        for sequence in range(1, count + 1):
            if sequence > 1:
                time.sleep(INTERVAL)
            answer = invocation.ask(
                "ping",
                patience=timeout + MARGIN,
                target=target,
                timeout=timeout,
                version=version,
            )
            if sequence == 1:
                click.echo(_heading(answer))
            click.echo(_round(sequence, objects(answer["legs"]), tallies))
    for tally in tallies.values():
        click.echo(tally.line())
    _judge(answer, list(tallies.values()))
    return 0


def _heading(answer: Json) -> str:
    path = plain(answer["path"])
    path = {"local": "on this node", "none": "no path now"}.get(path, path)
    owner = "" if answer["kind"] == "node" else f" of {answer['node']}"
    return f"{answer['kind']} {answer['target']} ({answer['address']}){owner}, {path}"


def _round(sequence: int, legs: list[Json], tallies: dict[str, Tally]) -> str:
    words = [f"seq={sequence}"]
    for leg in legs:
        name, rtt = plain(leg["leg"]), leg["rtt"]
        tally = tallies.setdefault(name, Tally(name, plain(leg["to"])))
        tally.sent += 1
        if isinstance(rtt, int | float):
            tally.rtts.append(rtt)
        words.append(f"{name}={milliseconds(rtt) or 'lost'}")
    return " ".join(words)


def _judge(answer: Json, tallies: list[Tally]) -> None:
    """Fail with the first leg over which nothing came back."""
    what = f"cannot reach {answer['target']}"
    for tally in tallies:
        if tally.rtts:
            continue
        if tally.leg == "overlay":
            why = f"the overlay leg failed, {tally.to} ({answer['state']}) answers no probe"
            raise CliError(what, why, "look at its daemon, and at the underlay between the nodes")
        why = f"the {tally.leg} leg failed, {tally.to} answers no echo"
        if len(tallies) > 1:
            why += f" although {answer['node']} is reachable"
        raise CliError(what, why, f"look at the namespace and the routes on {answer['node']}")
