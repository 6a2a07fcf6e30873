"""How long a node needs to put right what somebody else has changed in its kernel.

    scripts/vandalize                       every act three times: some three minutes
    scripts/vandalize --only TUN --rounds 9

Two nodes in network namespaces, two pods on the first. Ten pings a second go to one of these from
the other and from the second node. A repair is over when everything that is ours is as it was, as
`ip`, `nft` and `sysctl` tell; looking takes a tenth of a second. What is not ours is compared too.
The exit code is 0 if each act was put right within 5 s.
"""

from __future__ import annotations

import sys
from statistics import median

from bench.scripts import as_root, at_least, ended, parser_of
from tests.support.labs import OWN_ROOT, LabMaker, remove_leftovers
from tests.support.vandalism import ACTS, vandalized

WANTED = 5.0
"""Seconds."""

HEAD = (
    "| act | seconds, median | longest | pings lost beside it | from the other node |\n"
    "|---|---|---|---|---|"
)


def main() -> int:
    """Measure and print; returns the exit code."""
    parser = parser_of("vandalize", __doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="acts whose names contain it")
    parser.add_argument("--rounds", type=at_least(1), default=3, help="of each act")
    options = as_root(parser)
    chosen = [act for act in ACTS if options.only in act.name]
    if not chosen:
        parser.error(f"no act is called {options.only!r}: {', '.join(act.name for act in ACTS)}")
    print(HEAD, flush=True)
    slow = []
    try:
        with LabMaker(OWN_ROOT) as maker, vandalized(maker) as scene:
            for act in chosen:
                outcomes = [scene.suffer(act) for _ in range(options.rounds)]
                seconds = [outcome.seconds for outcome in outcomes]
                lost = [[one.lost[place] for one in outcomes] for place in (0, 1)]
                cells = [f"{median(seconds):.2f}", f"{max(seconds):.2f}"]
                cells += [f"{median(counts):.0f} (most {max(counts)})" for counts in lost]
                print(f"| {act.name} | {' | '.join(cells)} |", flush=True)
                slow += [act.name] * (max(seconds) > WANTED)
    finally:
        remove_leftovers()
    if slow:
        print(f"not within {WANTED:g} s: {', '.join(slow)}", file=sys.stderr)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(ended("vandalize", main))
