"""Random daemons killed while pods come and go.

    scripts/kills                                   100 kills in 5 minutes, 5 nodes
    scripts/kills --kills 20 --minutes 1 --nodes 3  shorter

Daemons of a lab get SIGKILL at random moments and are started again at once. Meanwhile pods are
added and deleted on all nodes, by the control socket and by the installed program, whether the
daemon runs or not: what a dead daemon refuses is asked again. Some namespaces vanish and nobody
says so. Two pods on each node ping each other ten times a second by each family. The exit code is 0
if in the end the tables of all nodes agree with each other and with what was done, every pod
reaches every other, every node is well and its books balance, no ping between pods of one node was
lost, and nothing is left: links, addresses, routes, rules, namespaces, descriptors, processes.
"""

from __future__ import annotations

import argparse
import sys
import time

from bench.scripts import as_root, at_least, ended, parser_of
from tests.support.kills import Outcome, kills, same_node_lost
from tests.support.labs import OWN_ROOT, LabMaker, remove_leftovers

MOST_NODES = 16


def main() -> int:
    """Kill, print, compare; returns the exit code."""
    parser = parser_of("kills", __doc__)
    parser.add_argument("--kills", type=at_least(1), default=100, help="how many [100]")
    parser.add_argument(
        "--minutes", type=at_least(0.1), default=5.0, help="in which they happen [5]"
    )
    parser.add_argument("--nodes", type=at_least(2), default=5, help=f"2 to {MOST_NODES} [5]")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random [1]")
    options = as_root(parser)
    if options.nodes > MOST_NODES:
        parser.error(f"--nodes: at most {MOST_NODES}")
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"kills: {time.monotonic() - began:5.0f} s  {what}", file=sys.stderr, flush=True)

    try:
        with LabMaker(OWN_ROOT) as make_lab:
            outcome = kills(
                make_lab,
                nodes=options.nodes,
                count=options.kills,
                seconds=options.minutes * 60,
                seed=options.seed,
                tell=tell,
            )
    finally:
        remove_leftovers()
    show(outcome, options)
    return 1 if outcome.wrong else 0


def show(outcome: Outcome, options: argparse.Namespace) -> None:
    """Print the table, and everything that is wrong."""
    figures, (median, longest) = outcome.figures, outcome.start()
    pings = sum(one.sent for one in outcome.same)
    rows = {
        "nodes; minutes; seed": f"{options.nodes}; {options.minutes:g}; {options.seed}",
        "daemons killed, and started again at once": f"{outcome.kills:,}",
        "from a kill until the daemon answers, median; longest": f"{median:.2f} s; {longest:.2f} s",
        "pods made; deleted; whose namespace vanished": (
            f"{figures['made']:,}; {figures['removed']:,}; {figures['vanished']:,}"
        ),
        "requests refused while a daemon was down": f"{figures['refused']:,}",
        "requests cut off with their daemon; put off at its start": (
            f"{figures['cut off']:,}; {figures['later']:,}"
        ),
        "pods in the end; pairs that do not reach each other": (
            f"{outcome.pods}; {outcome.unreached}"
        ),
        "pings between pods of one node; lost": f"{pings:,}; {same_node_lost(outcome)}",
        "longest time without an answer between nodes": f"{outcome.stall():.2f} s",
        "tables that differ, problems, leaks": f"{len(outcome.wrong)}",
    }
    print("| | |\n|---|---|")
    for what, count in rows.items():
        print(f"| {what} | {count} |")
    for line in outcome.wrong:
        print(f"FAILED {line}")


if __name__ == "__main__":
    sys.exit(ended("kills", main))
