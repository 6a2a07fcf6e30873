"""Addresses that rest: stored, restored, and taken over from another machine.

An address of a deleted pod is not given to another for a quarantine (`overlay.ipam.allocator`).
That holds across restarts, so its end is stored, as wall-clock time: nothing else goes on while a
machine is off. A clock that was set between the two shifts the end by as much, but never beyond a
whole quarantine.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from overlay.catalog.records import PodEntry
from overlay.ipam.allocator import Allocator, Resting, Slot
from overlay.state import StoredRest


def stored_rest(rest: Resting, epoch: float) -> StoredRest:
    """What is stored of one. `epoch` is Unix seconds at monotonic zero."""
    # Rounded up: a restart must not free an address early.
    return StoredRest(rest.pod, *rest.slot, max(0, ceil(rest.until + epoch)))


def restore_rests(
    allocator: Allocator, stored: Iterable[StoredRest], epoch: float, now: float
) -> None:
    """Let addresses rest on that were resting when the node last ran."""
    for rest in stored:
        allocator.rest(Resting(rest.pod, Slot(rest.block, rest.host), rest.until - epoch), now)


def rest_all(allocator: Allocator, pods: Iterable[PodEntry], quarantine: float, now: float) -> None:
    """Let the addresses of pods rest that another machine had under this node's identity."""
    for pod in pods:
        allocator.rest(Resting(pod.name, Slot(pod.block, pod.host), now + quarantine), now)
