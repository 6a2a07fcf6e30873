"""Replace a node's daemon under traffic, and measure what its pods notice.

    scripts/upgrade                 five times each way: some two minutes
    scripts/upgrade --times 20      more often
    scripts/upgrade --lanes 2       with other lanes

Two nodes; pods of both exchange a thousand numbered datagrams a second in each direction, TCP at
full speed, and have a connection on which nothing is said. `tests/support/upgrades.py` shows the
picture. The ways, one after the other:

    take-over    a second `muslin up`
    restart      a service manager's, with its descriptor store (a stand-in for systemd)
    SIGKILL      and a plain start

Columns: datagrams sent and lost, towards the node and from it, over all times together; the longest
time in which none came; bytes that TCP moved; what the start took until the daemon answered. It
fails if a connection was reset, or a datagram came twice, or pods of one node lost any.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.scripts import as_root, at_least, ended, parser_of
from tests.support.labs import OWN_ROOT, Lab, LabMaker, remove_leftovers
from tests.support.manager import Manager
from tests.support.upgrades import Service, kill, loaded, moved, take_over

HEAD = (
    "| way | times | datagrams to / from | lost to / from | longest stall, ms: median / worst "
    "| TCP, Gbit/s | start, s |\n|---|---|---|---|---|---|---|"
)
SECONDS_EACH = 3.0
"""Of TCP for each replacement: some of them are the start of the next daemon."""


def measure(lab: Lab, way: str, times: int, replace: Callable[[], float]) -> bool:
    """Print one row; whether nothing happened that must not."""
    stalls: list[float] = []
    starts: list[float] = []
    seconds = int(times * SECONDS_EACH) + 2
    with loaded(lab, seconds=seconds) as load:
        to, back, within = (load.flows[name] for name in ("to", "from", "within"))
        for flow in (to, back):
            flow.take_stall()
        for _ in range(times):
            starts.append(replace())
            load.check()
            stalls.append(max(to.take_stall(), back.take_stall()))
    rate = moved(load.tcp) * 8 / seconds / 1e9
    print(
        f"| {way} | {times} | {to.sent:,} / {back.sent:,} | {to.lost} / {back.lost} "
        f"| {median(stalls) * 1e3:.0f} / {max(stalls) * 1e3:.0f} | {rate:.2f} "
        f"| {median(starts):.2f} |",
        flush=True,
    )
    return within.lost == 0 and to.again == back.again == within.again == 0


def run(times: int, lanes: int) -> bool:
    """All ways, one after the other."""
    settings = {"MUSLIN_LANES": str(lanes)} if lanes > 1 else {}
    remove_leftovers()
    with LabMaker(OWN_ROOT) as maker, tempfile.TemporaryDirectory() as folder:
        lab = maker(nodes=2, pods=2, settings=settings)
        print(HEAD, flush=True)
        whole = measure(lab, "take-over", times, lambda: take_over(lab))
        whole &= measure(lab, "SIGKILL", times, lambda: kill(lab))
        with Manager(Path(folder) / "notify") as manager, Service(lab, manager) as service:
            whole &= measure(lab, "restart", times, service.restart)
        return whole


def main() -> int:
    """Measure as the arguments say."""
    parser = parser_of("upgrade", __doc__)
    parser.add_argument("--times", type=at_least(1), default=5, help="replacements of each way (5)")
    parser.add_argument("--lanes", type=at_least(1), default=1, help="processes of each node (1)")
    options = as_root(parser)
    return 0 if run(options.times, options.lanes) else 1


if __name__ == "__main__":
    sys.exit(ended("upgrade", main))
