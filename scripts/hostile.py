"""Attack a node from outside, as fast as this machine can, and measure what it notices.

    scripts/hostile                         all of it: some ten minutes
    scripts/hostile --seconds 10            shorter floods of handshakes
    scripts/hostile --only datagrams        or: handshakes
    scripts/hostile --rate 50000            another rate than 10,000 a second

Two nodes and their pods, a TCP stream between the pods all the time, and strangers in the underlay
(`tests/support/siege.py` shows the picture). Goodput is compared in turns of some seconds without
and with the attack, one after the other; what is shown is the ratio of the medians. The strangers
use processor time of the same machine, which the nodes lose as well.

    datagrams    random, truncated at each length, bit-flipped and replayed, made from all that was
                 ever sent to the node; at the rate, and a million as fast as they go
    handshakes   initiations with a valid mac1: from one address and from 10,000, which cannot read
                 what comes back (forged) or answer cookies (real); in each a new node joins

It fails if anything was answered that must not be, delivered, or held, or if a node did not join.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.scripts import as_root, at_least, ended, parser_of
from overlay.drops import DropReason
from overlay.session.ratelimit import CALM
from tests.support import pump
from tests.support.labs import OWN_ROOT, remove_leftovers
from tests.support.siege import Siege, besieged, finish
from tests.support.waiting import eventually

MEGABYTE = 1 << 20
DISTINCT = 20_000
"""Hostile datagrams that are made; they are sent over and over."""
ADDRESSES = 10_000
TURN = 3.0
"""Seconds of one turn without or with hostile datagrams."""
JOINING = 5.0
"""Seconds that a new node may take to join."""
HALF_OPEN = 10 * MEGABYTE
"""What a flood of handshakes may make a node hold."""
KEPT = 0.8
"""Of the goodput, wanted."""


@dataclass(frozen=True)
class Row:
    """One line of the table, and what must not have happened."""

    title: str
    sent: int
    rate: float
    goodput: float | None
    cells: tuple[str, ...]
    faults: tuple[str, ...]

    def __str__(self) -> str:
        kept = f"{self.goodput:.0%}" if self.goodput is not None else ""
        return f"| {self.title} | {self.sent:,} | {self.rate:,.0f} | {kept} | " + " | ".join(
            (*self.cells, "")
        )


HEAD = (
    "| attack | datagrams | a second | goodput kept | answers | memory, MB | CPU, µs each "
    "| to join, s |\n|---|---|---|---|---|---|---|---|"
)


class Watch:
    """What the node does between two moments.

    Args:
        siege: whose target it is.
    """

    def __init__(self, siege: Siege) -> None:
        self._siege = siege
        self._was = self._now()

    def _now(self) -> tuple[int, int, int, float, int]:
        siege = self._siege
        return siege.answers, siege.delivered, siege.rss, siege.cpu, siege.overflowed

    def __call__(self) -> tuple[int, int, float, float, int]:
        """Answers, deliveries, megabytes, processor seconds, datagrams that overflowed."""
        answers, delivered, rss, cpu, over = (
            now - was for now, was in zip(self._now(), self._was, strict=True)
        )
        return answers, delivered, rss / MEGABYTE, cpu, over


def faults_of(answers: int, delivered: int, megabytes: float, most: float) -> tuple[str, ...]:
    """What must not have happened, in words."""
    found = []
    if answers:
        found.append(f"{answers} answers")
    if delivered:
        found.append(f"{delivered} deliveries")
    if megabytes >= most:
        found.append(f"{megabytes:.2f} MB more")
    return tuple(found)


def at_a_rate(siege: Siege, packets: Sequence[bytes], rate: float, turns: int) -> Row:
    """Goodput beside hostile datagrams."""
    watch = Watch(siege)
    quiet, loud = siege.rounds(packets, rate=rate, seconds=TURN, count=turns)
    siege.settled()
    answers, delivered, megabytes, _, _ = watch()
    # The stream itself makes the kernel and the daemon hold more or less; memory is for the next.
    faults = faults_of(answers, delivered, 0.0, 1.0)
    kept = median(loud) / median(quiet)
    cells = (str(answers), f"{megabytes:.2f}", "", "")
    return Row("hostile datagrams", int(rate * TURN) * turns, rate, kept, cells, faults)


def at_full_speed(siege: Siege, packets: Sequence[bytes], count: int, *, stream: bool) -> Row:
    """As many as the kernel takes, beside a stream, or alone, which shows what each costs."""
    watch = Watch(siege)
    if stream:
        with siege.streaming():
            flood = siege.flood(packets, rate=0, count=count)
    else:
        flood = siege.flood(packets, rate=0, count=count)
    siege.settled()
    answers, delivered, megabytes, cpu, over = watch()
    each = "" if stream else f"{cpu / (flood.sent - over) * 1e6:.1f}"
    title = "the same, at full speed" + ", beside a stream" * stream
    title += f" ({over / flood.sent:.0%} dropped by the kernel)"
    cells = (str(answers), f"{megabytes:.2f}", each, "")
    faults = faults_of(answers, delivered, megabytes, 1.0)
    return Row(title, flood.sent, flood.rate, None, cells, faults)


def handshakes(
    siege: Siege, number: int, *, many: bool, cookies: bool, rate: float, seconds: float
) -> Row:
    """A flood of initiations beside a stream, during which a node joins."""
    made = siege.initiations(ADDRESSES if many else 1, random.Random(number))
    packets = siege.from_many(made) if many else siege.from_one(made)
    newcomer, token = siege.newcomers[number], siege.target.says("token").strip()
    eventually(lambda: "under-load" not in siege.target.problems(), within=60.0)
    begun, ended = siege.reports("load.begun"), siege.reports("load.ended")
    before, watch, turn = siege.drops, Watch(siege), seconds / 6
    with siege.streaming() as samples:
        moments = [time.monotonic()]
        time.sleep(seconds / 4)
        with siege.flooding(
            packets, rate=rate, count=int(rate * seconds), cookies=cookies
        ) as running:
            began = time.monotonic()
            eventually(lambda: "under-load" in siege.target.problems(), within=seconds)
            time.sleep(seconds / 4)
            asked = time.monotonic()
            joined = newcomer.types("join", token, "--name", newcomer.name, timeout=60.0)
            took = time.monotonic() - asked
            held, lost = watch(), siege.drops - before
            flood = finish(running)
        time.sleep(seconds / 4)
        quiet = _turns(samples, moments[0], began - 1.0, turn / 2)
        quiet += _turns(samples, flood.ended + 0.5, time.monotonic(), turn / 2)
        loud = _turns(samples, flood.began, flood.ended, turn)
    eventually(lambda: "under-load" not in siege.target.problems(), within=CALM * 6.0)
    faults = list(faults_of(0, held[1], held[2], HALF_OPEN / MEGABYTE))
    if joined.returncode or took > JOINING:
        faults.append(f"joining took {took:.1f} s: {joined.stderr.strip()}")
    if (siege.reports("load.begun"), siege.reports("load.ended")) != (begun + 1, ended + 1):
        faults.append("the load did not begin and end once")
    if held[0] > lost[DropReason.UNDER_LOAD] + lost[DropReason.REPLAYED]:
        faults.append(f"{held[0]} answers")
    title = f"handshakes from {f'{ADDRESSES:,} addresses' if many else 'one address'}, "
    title += "real" if cookies else "forged"
    cells = (f"{held[0]:,} cookies", f"{held[2]:.2f}", "", f"{took:.1f}")
    kept = median(loud) / median(quiet)
    return Row(title, flood.sent, flood.rate, kept, cells, tuple(faults))


def _turns(samples: pump.Path, since: float, until: float, turn: float) -> list[float]:
    """Goodput of each turn between two moments."""
    count = int((until - since) / turn)
    return [
        pump.goodput(samples, since + turn * index, since + turn * (index + 1))
        for index in range(count)
    ]


def attacks(siege: Siege, options: argparse.Namespace) -> list[Row]:
    """All that was asked for."""
    rows = []
    if options.only != "handshakes":
        packets = siege.from_one(siege.hostile(DISTINCT, random.Random(options.seed)))
        siege.flood(packets, rate=options.rate, count=DISTINCT)  # what is made once is made
        siege.settled()
        rows.append(at_a_rate(siege, packets, options.rate, options.turns))
        rows += [
            at_full_speed(siege, packets, options.datagrams, stream=stream)
            for stream in (True, False)
        ]
    if options.only != "datagrams":
        kinds = [(many, cookies) for many in (False, True) for cookies in (False, True)]
        for number, (many, cookies) in enumerate(kinds):
            print(f"hostile: {number + 1} of 4 floods of handshakes", file=sys.stderr)
            rows.append(
                handshakes(
                    siege,
                    number,
                    many=many,
                    cookies=cookies,
                    rate=options.rate,
                    seconds=options.seconds,
                )
            )
    return rows


def main() -> int:
    """Attack as the command line says; returns the exit status."""
    parser = parser_of("hostile", __doc__)
    parser.add_argument("--only", choices=("datagrams", "handshakes"), help="one half of it")
    parser.add_argument("--datagrams", type=at_least(1), default=1_000_000, help="(%(default)s)")
    parser.add_argument("--rate", type=at_least(1.0), default=10_000, help="a second (%(default)s)")
    parser.add_argument(
        "--turns", type=at_least(1), default=7, help="without and with (%(default)s)"
    )
    parser.add_argument(
        "--seconds", type=at_least(1.0), default=60.0, help="of a flood (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of what is sent (%(default)s)")
    options = as_root(parser)
    OWN_ROOT.mkdir(parents=True, exist_ok=True)
    try:
        with besieged(newcomers=4) as siege:
            rows = attacks(siege, options)
    finally:
        remove_leftovers()
    print(HEAD)
    for row in rows:
        print(row)
    faults = [f"{row.title}: {fault}" for row in rows for fault in row.faults]
    for row in rows:
        if row.goodput is not None and row.goodput < KEPT:
            print(f"hostile: {row.title}: {row.goodput:.0%}, not {KEPT:.0%}", file=sys.stderr)
    for fault in faults:
        print(f"hostile: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(ended("hostile", main))
