"""How exactly the rates of pods hold.

    scripts/limits                  10 s each, at 10, 100 and 1000 Mbit/s
    scripts/limits --seconds 3 --rates 50

Two nodes without daemons; a program copies packets from TUN to TUN between them. A pod is limited
in both directions, and what passes is compared with the same without a limit, as programs that
send and the way between the nodes have limits of their own: the machine should do nothing else.
UDP is sent at 1.2 times the rate. The exit code is 0 if nothing passes a rate by a tenth, nor stays
behind it, or behind what there is without one, by as much.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

from bench.scripts import as_root, at_least, ended, parser_of
from overlay.attachment import Attachment, Rate
from overlay.views import PodView
from tests.support.bed import Bed, applied, making_a_bed
from tests.support.rates import measured

MBIT = 1_000_000
LEAST = 8
"""Bits of a burst: as much as the rate needs is given."""

TOLERANCE = 0.1
FASTER = 1.2
HEAD = (
    "| rate, Mbit/s | direction | between pods of | TCP, Mbit/s | without | UDP, Mbit/s | without |"
    "\n|---|---|---|---|---|---|---|"
)


def main() -> int:
    """Measure and print; returns the exit code."""
    parser = parser_of("limits", __doc__)
    parser.add_argument("--seconds", type=at_least(1.0), default=10.0, help="of each measurement")
    parser.add_argument(
        "--rates",
        type=at_least(1),
        nargs="+",
        default=[10, 100, 1000],
        metavar="MBIT",
        help="to measure",
    )
    options = as_root(parser)
    print(HEAD, flush=True)
    with making_a_bed() as bed:
        bed.settle()
        held = [
            within
            for rate in options.rates
            for within in _measure(bed, rate * MBIT, options.seconds)
        ]
    return 0 if all(held) else 1


def _measure(bed: Bed, rate: int, seconds: float) -> Iterator[bool]:
    """One rate, all ways; whether each was kept."""
    said = Attachment(ingress=Rate(rate, LEAST), egress=Rate(rate, LEAST))
    limited = replace(bed.pod11, attachment=said)
    udp = f"{rate * FASTER:.0f}"
    for where, other in (("one node", bed.pod12), ("two nodes", bed.pod21)):
        for direction, ends in (("to", (other, limited)), ("from", (limited, other))):
            cells = []
            for sent in ("", udp):
                _set_up(bed, bed.pod11)
                free = measured(*ends, seconds, udp=sent)
                _set_up(bed, limited)
                value = measured(*ends, seconds, udp=sent)
                cells.append(f"{value / MBIT:.1f} | {free / MBIT:.1f}")
                yield min(rate, free) * (1 - TOLERANCE) <= value <= rate * (1 + TOLERANCE)
            print(f"| {rate // MBIT} | {direction} | {where} | {' | '.join(cells)} |", flush=True)


def _set_up(bed: Bed, pod: PodView) -> None:
    """A pod's rates are those that it came with: it goes, and comes again."""
    for pods in ((bed.pod12,), (pod, bed.pod12)):
        problems = applied(bed.node1, replace(bed.state1, pods=pods))
        assert problems == (), problems


if __name__ == "__main__":
    sys.exit(ended("limits", main))
