"""From one process of a service to the next, by way of the service manager's descriptor store.

    start        TUN and UDP are stored: whatever ends the process, the next one has them
    clean stop   the capsule is stored beside them, instead of a farewell to the peers
    next start   read, forgotten, confirmed - and only then used

A capsule in the store must not outlive its first reader: whoever crashes later shall not be
followed by somebody who uses the same keys with the same counters. So the reader has the manager
forget it and waits until it has (`BARRIER=1`); then it stores, on the disk, that this number is
used; and only then it is. Should a capsule turn up again all the same, its number is not the one
behind the last that was used. And an engine that has started in between has raised the boot
counter, which an engine compares for itself.

References:
    systemd.service(5), FileDescriptorStoreMax=; sd_pid_notify_with_fds(3).
"""

from __future__ import annotations

import os
from typing import Final

from node.errors import NodeError
from node.handover.capsule import CAPSULE, TUN, UDP, Capsule
from node.handover.speech import close_all
from node.handover.taker import Estate
from node.logs import EventLog
from node.state import StateFolder
from node.systemd import Notifier

USED: Final = "handed-over"
"""The file in the state folder that holds the number of the last capsule that was used."""

CONFIRM_PATIENCE: Final = 5.0
"""Seconds for the manager to have acted on what it was told."""


def read_store(kept: dict[str, list[int]], folder: StateFolder, notifier: Notifier) -> Estate:
    """What an earlier process of the service left. Closes everything that is of no use.

    Args:
        kept: descriptors by name, as `node.systemd.take_descriptors` has them.
        folder: of the node; the caller holds its lock.
        notifier: speaks to the manager.
    """
    descriptors = {}
    for name, found in kept.items():
        if name in (TUN, UDP) and len(found) == 1:
            descriptors[name] = found[0]
        elif name != CAPSULE:
            discard({name: found}, notifier)
    capsule = None
    if found := kept.get(CAPSULE, []):
        try:
            capsule = _use(found, folder, notifier)
        except NodeError as error:
            EventLog().warning("handover.refused", what=CAPSULE, why=error.why)
    return Estate(descriptors, capsule)


def discard(kept: dict[str, list[int]], notifier: Notifier) -> None:
    """Let go of what the manager kept, and have it do the same.

    Args:
        kept: descriptors by name, as for `read_store`.
        notifier: speaks to the manager.
    """
    for name, found in kept.items():
        close_all(found)
        notifier.forget(name)


def _use(found: list[int], folder: StateFolder, notifier: Notifier) -> Capsule:
    """The capsule, which nobody else can use from now on.

    Raises:
        NodeError: it may not be used. Nothing else.
    """
    try:
        # The manager has it no more, whatever comes of it here.
        notifier.forget(CAPSULE)
        forgotten = notifier.barrier(CONFIRM_PATIENCE)
        if len(found) > 1:
            raise NodeError("there are several")  # nobody knows which is the last
        capsule = Capsule.unseal(found[0])
    finally:
        close_all(found)
    if not forgotten:
        raise NodeError("the service manager does not confirm that it has forgotten it")
    if capsule.number != _last_used(folder) + 1:
        raise NodeError("it is not the one behind the last that was used")
    folder.write_raw(USED, b"%d\n" % capsule.number)
    return capsule


def leave_capsule(engine: bytes, folder: StateFolder, notifier: Notifier) -> bool:
    """Have the manager keep what an engine knew for the next process; whether it could be told.

    Args:
        engine: what `Engine.hand_over` gave.
        folder: of the node; the caller holds its lock.
        notifier: speaks to the manager.

    Raises:
        NodeError: there is no memory for it, or no number. Nothing else.
    """
    memory = Capsule(engine, _last_used(folder) + 1).seal()
    try:
        notifier.forget(CAPSULE)  # one that nobody has read
        return notifier.store(CAPSULE, memory)
    finally:
        os.close(memory)


def _last_used(folder: StateFolder) -> int:
    """The number of the last capsule that was used; 0 before the first.

    Raises:
        NodeError: it cannot be read: then nobody knows what was used. Nothing else.
    """
    path = folder.path / USED
    try:
        text = path.read_bytes().strip()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise NodeError.of(f"reading {path}", error) from error
    if not text.isdigit():
        raise NodeError(f"{path} holds no number", "remove it while no daemon runs")
    return int(text)
