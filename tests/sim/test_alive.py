"""Proof that the proofs are alive: with a protection taken away, some schedule fails, and soon.

Each protection is taken away by a patch, and seeds are tried one after the other. What is printed
(`pytest -s`) is the seed that found it and the invariants that were broken.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from overlay import keys
from overlay.sim.faults import Disk
from overlay.sim.schedules import Outcome, run_schedule
from overlay.state import NodeState

VERIFY = keys.verify

SEEDS = 60
"""Schedules that a search may take; at a fifth of a second each this is far below a minute."""

COMMON = {"join", "add-pod", "remove-pod", "heal"}
POWER = frozenset(COMMON | {"crash", "power-loss", "start", "restart"})
LIES = frozenset({"hostile"})


def first_failure(steps: frozenset[str]) -> Outcome:
    """The first schedule that fails."""
    for seed in range(SEEDS):
        outcome = run_schedule(seed, steps=steps)
        if outcome.failure:
            print(f"seed {seed}: {outcome.failure}")
            return outcome
    raise AssertionError(f"none of {SEEDS} schedules fails")


class ForgetfulDisk(Disk):
    """A disk that says it has written what is only in memory."""

    def __init__(self, *arguments: object, **settings: object) -> None:
        super().__init__(*arguments, **settings)
        self.fsync = False


def without_fsync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("overlay.sim.machine.Disk", ForgetfulDisk)


def without_fsync_and_nobody_looks_at_disks(patch: pytest.MonkeyPatch) -> None:
    without_fsync(patch)
    patch.setattr("overlay.sim.inspector.Inspector._stored", lambda self, node: None)


def without_tie_break(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        "overlay.gossip.store._supersedes", lambda item, held: item.version > held.version
    )


def without_signatures(patch: pytest.MonkeyPatch) -> None:
    for name in verifiers():
        patch.setattr(sys.modules[name], "verify", lambda *_: True)


def verifiers() -> Iterator[str]:
    """Modules that verify signatures."""
    for name, module in list(sys.modules.items()):
        if name.startswith("overlay.") and getattr(module, "verify", None) is VERIFY:
            yield name


def without_boot_counter(patch: pytest.MonkeyPatch) -> None:
    def without(state: NodeState, *, boot: int, **changes: object) -> NodeState:
        return replace(state, boot=1, **changes)

    patch.setattr("overlay.engine.replace", without)


def without_version_order(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("overlay.gossip.store._supersedes", lambda item, held: item != held)


def without_version_counter(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("overlay.versions.Versions.next", lambda versions: versions.boot << 32)


def without_rest(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("overlay.ipam.allocator.Allocator._lay_to_rest", lambda self, resting: None)


PROTECTIONS: list[tuple[Callable[[pytest.MonkeyPatch], None], frozenset[str], set[str]]] = [
    (without_fsync, POWER, {"stored-first"}),
    (without_fsync_and_nobody_looks_at_disks, POWER, {"boot-grows"}),
    (without_tie_break, LIES, {"settled"}),
    (without_signatures, LIES, {"owner-signed"}),
    (without_boot_counter, POWER, {"boot-grows"}),
    (without_version_order, LIES, {"never-backwards"}),
    (without_version_order, POWER, {"never-backwards"}),
    (without_version_counter, POWER, {"version-once"}),
    (without_rest, frozenset({"add-pod", "remove-pod"}), {"quarantine-kept"}),
]


@pytest.mark.parametrize(
    ("take_away", "steps", "expected"), PROTECTIONS, ids=[one[0].__name__ for one in PROTECTIONS]
)
def test_without_a_protection_some_schedule_fails(monkeypatch, take_away, steps, expected):
    with monkeypatch.context() as patch:
        take_away(patch)
        outcome = first_failure(steps)
    assert set(outcome.broken) & expected, outcome.failure
    assert not run_schedule(outcome.seed, steps=steps).failure, "it fails with the protection, too"


def test_signatures_are_verified_in_more_places_than_one():
    assert {"overlay.catalog.records", "overlay.ipam.deeds"} <= set(verifiers())
