"""`muslin bench`: throughput, round trips and loss to a peer, and what limits them.

The daemons at both ends agree on the measurement; this process is its near end (`node.bench`).
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import click

from node.cli.context import Finite, Invocation, Json, doing, pass_invocation, state_option
from node.cli.output import plain, to_json, to_yaml
from node.control.schema import ControlError

if TYPE_CHECKING:
    from node.bench.figures import Datagrams, Direction, Figures, Way
    from node.bench.near import Offer

OPEN_PATIENCE: Final = 15.0
"""Longer than the daemon waits for the other one, and then for a probe."""

DIRECTIONS: Final[dict[str, tuple[Direction, ...]]] = {
    "to": ("to",),
    "from": ("from",),
    "both": ("to", "from"),
}


@click.command(
    epilog="""\b
Examples:
  muslin bench node2                             a node
  muslin bench node2/web --streams 4             a pod, with four TCP streams at once
  muslin bench node2 --direction both -o json    both directions, for a program

\b
Datagrams (1,000 a second of 200 bytes, sent back) give round trips and loss while nothing else is
measured; then TCP gives the throughput. Each takes --seconds, through the overlay and beside it,
one after the other. Nothing needs to be installed at the other end; its settings may forbid it
(bench = false)."""
)
@click.argument("target", metavar="POD|NODE")
@click.option(
    "--seconds",
    type=Finite(0.2, 60.0),
    default=3.0,
    show_default=True,
    help="How long each measurement takes.",
)
@click.option(
    "--streams",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="TCP connections at once.",
)
@click.option(
    "--direction",
    type=click.Choice(tuple(DIRECTIONS)),
    default="to",
    show_default=True,
    help="Who sends: this node, the other, or one after the other.",
)
@click.option("--reverse", is_flag=True, help="The same as --direction from.")
@click.option("-o", "--output", type=click.Choice(("json", "yaml")), help="For programs.")
@state_option()
@pass_invocation
def bench(
    invocation: Invocation,
    target: str,
    seconds: float,
    streams: int,
    direction: str,
    output: str | None,
    *,
    reverse: bool,
) -> int:
    """Measure the way to a pod or node, through the overlay and beside it; say what limits it."""
    from node.bench.near import OVERHEAD, Near, steps  # noqa: PLC0415 - only this verb measures
    from node.cli.bar import Bar  # noqa: PLC0415 - as above

    directions = DIRECTIONS["from" if reverse else direction]
    longest = len(steps(directions, underlay=True)) * seconds + OVERHEAD
    request = secrets.randbits(63)
    with doing(f"cannot measure the way to {target}"):
        try:
            answer = invocation.ask(
                "bench.open",
                patience=OPEN_PATIENCE,
                request=request,
                target=target,
                seconds=min(longest, 600.0),
            )
            offer = _offer(answer)
            plan = steps(directions, underlay=offer.underlay_port != 0)
            with Near(offer, streams, seconds) as near, Bar(len(plan) * seconds) as bar:
                for step in plan:
                    bar.step(step.words, seconds)
                    near.run(step)
        finally:
            with suppress(ControlError):  # the far end also sees that this one is gone
                invocation.ask("bench.close", request=request)
    figures = near.figures
    if offer.underlay_port == 0:
        figures.underlay.faults.append(_no_underlay(offer))
    about: Json = {key: answer[key] for key in ("target", "kind", "node", "path")}
    about |= {"seconds": seconds, "streams": streams}
    match output:
        case "json":
            click.echo(to_json(as_json(about, figures, directions)))
        case "yaml":
            click.echo(to_yaml(as_json(about, figures, directions)))
        case _:
            click.echo(as_text(about, figures, directions))
    return 0


def _offer(answer: Json) -> Offer:
    from node.bench.near import Offer  # noqa: PLC0415 - only this verb measures

    try:
        token = bytes.fromhex(plain(answer["token"]))
        port, beside, daemon = (
            int(plain(answer[key])) for key in ("port", "underlay_port", "daemon")
        )
    except (KeyError, ValueError) as error:
        why = "the daemon's answer is not of the expected form"
        raise ControlError("bad-answer", why, "use the command of its version") from error
    half = len(token) // 2
    return Offer(
        node=plain(answer["node"]),
        address=plain(answer["address"]),
        port=port,
        token=token[:half],
        underlay=plain(answer["underlay"]),
        underlay_port=beside,
        underlay_token=token[half:],
        daemon=daemon,
    )


def _no_underlay(offer: Offer) -> str:
    if not offer.underlay:
        return "no underlay address is known"
    return f"{offer.underlay} is not {offer.node}'s own address: a NAT?"


# -- what is shown -----------------------------------------------------------------------------


def as_json(about: Json, figures: Figures, directions: tuple[Direction, ...]) -> Json:
    """The answer for programs; keys never change."""
    from node.bench.verdict import find_limit  # noqa: PLC0415 - only this verb measures

    limits = [(direction, find_limit(figures, direction)) for direction in directions]
    ratios = {direction: figures.ratio(direction) for direction in ("to", "from")}
    return {
        **about,
        "overlay": figures.overlay.json(),
        "underlay": figures.underlay.json(),
        "ratio": {key: None if value is None else round(value, 4) for key, value in ratios.items()},
        "limits": [
            {"direction": direction, "code": limit.code, "why": limit.why}
            for direction, limit in limits
            if limit is not None
        ],
    }


def as_text(about: Json, figures: Figures, directions: tuple[Direction, ...]) -> str:
    """The answer for people."""
    from node.bench.verdict import find_limit  # noqa: PLC0415 - only this verb measures

    beside = f"underlay {figures.underlay.address}".rstrip()
    rows = [
        ["through the overlay", *_cells(figures.overlay, directions)],
        [beside, *_cells(figures.underlay, directions)],
    ]
    ratios = [figures.ratio(direction) for direction in directions]
    if None not in ratios:
        rows.append(["overlay / underlay", ", ".join(f"{ratio:.2f}" for ratio in ratios)])
    many = "s" if about["streams"] != 1 else ""
    head = (
        f"{about['kind']} {about['target']} ({figures.overlay.address}), {about['path']}, "
        f"{about['streams']} TCP stream{many}, {about['seconds']:g} s each"
    )
    lines = [head, *_aligned(rows)]
    for direction in directions:
        limit = find_limit(figures, direction)
        which = f" ({direction})" if len(directions) > 1 else ""
        lines += [f"limited by{which}: {limit.words}"] if limit is not None else []
    return "\n".join(lines)


def _cells(way: Way, directions: tuple[Direction, ...]) -> list[str]:
    rates = []
    for direction in directions:
        stream = way.stream(direction)
        if stream is not None:
            which = f"{direction} " if len(directions) > 1 else ""
            rates.append(f"{which}{rate(stream.rate)}")
    cells = [", ".join(rates), *_datagrams(way.datagrams), "; ".join(dict.fromkeys(way.faults))]
    return [cell for cell in cells if cell]


def _datagrams(datagrams: Datagrams | None) -> list[str]:
    if datagrams is None:
        return []
    p50, p99 = datagrams.percentile(0.5), datagrams.percentile(0.99)
    if p50 is None or p99 is None:
        return []
    loss = f"loss {datagrams.loss:.1%}"
    if f"{datagrams.loss_back:.1%}" != f"{datagrams.loss:.1%}":
        loss += f" there, {datagrams.loss_back:.1%} back"
    return [f"rtt {p50 * 1000:.2f} ms p50, {p99 * 1000:.2f} ms p99", loss.replace("%", " %")]


def rate(bits: float) -> str:
    """Bits per second, as people say it.

    >>> rate(6.812e9), rate(312.4e6), rate(56000)
    ('6.81 Gbit/s', '312 Mbit/s', '0.06 Mbit/s')
    """
    if bits >= 1e9:
        return f"{bits / 1e9:.2f} Gbit/s"
    return f"{bits / 1e6:.0f} Mbit/s" if bits >= 10e6 else f"{bits / 1e6:.2f} Mbit/s"


def _aligned(rows: list[list[str]]) -> list[str]:
    columns = max(map(len, rows))
    widths = [max(len(row[at]) for row in rows if at < len(row)) for at in range(columns)]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]
