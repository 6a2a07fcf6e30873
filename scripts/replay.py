"""Replays of recorded traffic against real daemons.

    scripts/replay                  ten minutes of traffic
    scripts/replay --minutes 1      shorter

Three nodes in network namespaces, with a pod each, all of which send each other numbered packets.
Everything between the nodes is recorded from the first datagram on, joins and rekeys included, and
then sent again: in order, reversed, shuffled; from another address and from the original one; to
the node it was for and to a third; at once, after a rekey, after a restart of either of two nodes.
The exit code is 0 if no pod got a packet twice, no node shows anything changed, and every datagram
is counted as a drop. The one exception: a node that has just started may answer initiations that
it has not seen in this life, with a response nobody can use.
"""

from __future__ import annotations

import sys

from bench.scripts import as_root, at_least, ended, parser_of
from overlay.config import Timing
from tests.support.labs import OWN_ROOT, LabMaker, remove_leftovers
from tests.support.replay_lab import Row, every_way, recorded

HEAD = (
    "| when | to | order | from | datagrams | refused | answered | delivered twice | changed |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def main() -> int:
    """Record and replay; returns the exit code."""
    parser = parser_of("replay", __doc__)
    parser.add_argument("--minutes", type=at_least(0.1), default=10.0, help="of traffic to record")
    options = as_root(parser)
    rows: list[Row] = []

    def tell(row: Row) -> None:
        rows.append(row)
        print(cells(row), flush=True)

    try:
        with LabMaker(OWN_ROOT) as make_lab, recorded(make_lab, options.minutes * 60) as scene:
            print(HEAD, flush=True)
            every_way(scene, Timing().rekey_after * 1.5, tell)
            most = {name: scene.initiations(name) for name in scene.seen}
    finally:
        remove_leftovers()
    return 0 if all(row.nothing or is_fresh(row, most[row.to]) for row in rows) else 1


def is_fresh(row: Row, initiations: int) -> bool:
    """Whether all that came of it is what a node may do that has just started."""
    unrefused = row.sent - row.refused.total()
    restarted = row.when == f"after a restart of {row.to}"
    return restarted and unrefused <= initiations and not (row.twice or row.changed)


def cells(row: Row) -> str:
    """One replay as a row of the table."""
    refused = row.refused.total()
    shown = (
        row.when,
        row.to,
        row.order,
        row.source,
        f"{row.sent:,}",
        "all" if refused == row.sent else f"{refused:,}",
        row.answered,
        row.twice,
        len(row.changed),
    )
    return "| " + " | ".join(map(str, shown)) + " |"


if __name__ == "__main__":
    sys.exit(ended("replay", main))
