"""Rekeys under load with real daemons, counted against runs without.

    scripts/rekey                   five minutes for each row of the table, and as much without
    scripts/rekey --minutes 0.5     shorter
    scripts/rekey --only loss       two rows of the six

Two nodes in network namespaces send each other numbered packets of all sizes. The daemons are of a
build for tests: both ends start a handshake every 2 s, and every (key, counter) that seals a burst
is written to a file. In half of the runs one frame in twenty is lost in the underlay, handshakes
included. The exit code is 0 if without that loss every packet arrived, none came twice anywhere,
and no nonce was used twice.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench.scripts import as_root, at_least, ended, parser_of
from tests.support.labs import OWN_ROOT, LabMaker, remove_leftovers
from tests.support.rekey_lab import Load, under_load

HEAD = (
    "| lanes | loss | rekeys | packets | lost | twice | keys | bursts | nonces twice |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


PAIRS = {"clean": (1, False), "loss": (1, True), "lanes": (2, False)}
"""Lanes, and whether frames are lost, of each pair of runs: without rekeys, and with."""


def main() -> int:
    """Run all rows; returns the exit code."""
    parser = parser_of("rekey", __doc__)
    parser.add_argument("--minutes", type=at_least(0.1), default=5.0, help="of load in each run")
    parser.add_argument("--only", choices=PAIRS, help="this pair of rows")
    options = as_root(parser)
    print(HEAD, flush=True)
    well = True
    for lanes, loss in [PAIRS[options.only]] if options.only else PAIRS.values():
        for rekeys in (False, True):
            load = one(options.minutes * 60, lanes, loss=loss, rekeys=rekeys)
            print(row(load, lanes, loss=loss, rekeys=rekeys), flush=True)
            well &= not load.twice and not load.nonces_twice and (loss or not load.missing)
    return 0 if well else 1


def one(seconds: float, lanes: int, *, loss: bool, rekeys: bool) -> Load:
    """One run, in a lab of its own."""
    try:
        with tempfile.TemporaryDirectory() as folder, LabMaker(OWN_ROOT) as make_lab:
            return under_load(
                make_lab, Path(folder), seconds=seconds, rekeys=rekeys, loss=loss, lanes=lanes
            )
    finally:
        remove_leftovers()


def row(load: Load, lanes: int, *, loss: bool, rekeys: bool) -> str:
    """One run as a row of the table."""
    share = f"{load.missing:,} ({load.missing / load.sent:.2%})"
    cells = (
        lanes,
        "1 in 20" if loss else "none",
        f"every 2 s ({load.rekeys:,} seen)" if rekeys else "never",
        f"{load.sent:,}",
        share,
        load.twice,
        load.keys,
        f"{load.bursts:,}",
        load.nonces_twice,
    )
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    sys.exit(ended("rekey", main))
