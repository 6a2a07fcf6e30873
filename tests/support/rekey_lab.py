"""Two real daemons under load, of a build that replaces keys often and writes down every nonce."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.labs import Lab, LabMaker
from tests.support.modified import modified, nonces
from tests.support.processes import run
from tests.support.used_numbers import Numbers
from tests.support.waiting import eventually

EVERY = 2.0
"""Seconds between rekeys."""

REJECT = 20.0
NEVER = 1e6
RATE = 200.0
"""Packets per second in each direction."""

LOST = """
add table bridge muslin_loss
add chain bridge muslin_loss loss { type filter hook forward priority 0; policy accept; }
add rule bridge muslin_loss loss meta protocol ip numgen inc mod 20 0 counter drop
"""
"""One frame in twenty between the nodes, handshakes and gossip included; ARP passes."""


@dataclass
class Load:
    """What came of one run."""

    sent: int
    missing: int
    twice: int
    drops: Counter[str]
    """What both daemons lost, by reason."""
    rekeys: int
    """Times that a node showed a younger keypair than before, as far as was looked."""
    keys: int
    """That sealed."""
    bursts: int
    nonces_twice: int


@contextmanager
def losing(lab: Lab) -> Iterator[None]:
    """One frame in twenty is lost, for the time of a `with` block."""
    run(lab.underlay, "nft", LOST)
    try:
        yield
    finally:
        run(lab.underlay, "nft", "delete", "table", "bridge", "muslin_loss")


def under_load(
    make_lab: LabMaker,
    folder: Path,
    *,
    seconds: float,
    rekeys: bool = True,
    together: bool = True,
    loss: bool = True,
    lanes: int = 1,
) -> Load:
    """One run.

    Args:
        make_lab: makes the lab.
        folder: an empty one, for what the daemons write down.
        seconds: of load.
        rekeys: whether keys are replaced every `EVERY` seconds, or never.
        together: whether both ends start.
        loss: whether one frame in twenty is lost.
        lanes: of each node.
    """
    timing = (EVERY, REJECT) if rekeys else (NEVER, 2 * NEVER)
    settings = modified(
        folder, rekey_after=timing[0], reject_after=timing[1], together=together and rekeys
    )
    lab = make_lab(settings=settings | {"MUSLIN_LANES": str(lanes)})
    near, far = lab["node1-pod1"], lab["node2-pod1"]
    with ExitStack() as stack:
        both = [
            stack.enter_context(Numbers(*ends, RATE, 5007 + number))
            for number, ends in enumerate(((near, far), (far, near)))
        ]
        eventually(lambda: all(one.arrived for one in both), within=20.0)
        before = drops(lab)
        if loss:
            stack.enter_context(losing(lab))
        until, seen = time.monotonic() + seconds, list[str]()
        while time.monotonic() < until:
            made = lab.session("node1", "node2")["rekeyed"]
            seen += [made] if made not in seen else []
            time.sleep(EVERY / 4)
        for one in both:
            one.pause()
        eventually(lambda: not any(one.missing for one in both) or calm(both), within=20.0)
        lost = drops(lab) - before
    used = nonces(folder)
    return Load(
        sent=sum(one.sent for one in both),
        missing=sum(one.missing for one in both),
        twice=sum(len(one.twice) for one in both),
        drops=lost,
        rekeys=len(seen) - 1,
        keys=len({key for key, _ in used}),
        bursts=used.total(),
        nonces_twice=sum(times > 1 for times in used.values()),
    )


def calm(both: list[Numbers]) -> bool:
    """Whether nothing more comes: what was on its way has arrived, or never will."""
    before = [len(one.arrived) for one in both]
    time.sleep(2.0)
    return before == [len(one.arrived) for one in both]


def drops(lab: Lab) -> Counter[str]:
    """What all nodes have lost so far, by reason."""
    return sum((lab.drops(node.name) for node in lab.nodes), Counter())
