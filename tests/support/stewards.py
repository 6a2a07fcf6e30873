"""What a node may tell: what is on its disk."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import pytest

from overlay.catalog.keys import block_of_key, node_key
from overlay.effects import Effect, Persist, SendControl, SendDatagram
from overlay.errors import RefusedError
from overlay.ipam.deeds import Chain, decode_chain_untrusted
from overlay.sim import World
from overlay.wire.cluster import Cluster

FULL = 1_000_000
"""Writes that fail: more than any test makes."""


def refused(call, *arguments: object) -> str:
    """Call it; the code of its refusal."""
    with pytest.raises(RefusedError) as caught:
        call(*arguments)
    return caught.value.code


def assert_stored_first(effects: list[Effect]) -> None:
    """Nothing is sent in front of what is to be stored."""
    kinds = [type(effect) for effect in effects]
    assert Persist in kinds
    assert not {SendDatagram, SendControl} & set(kinds[: kinds.index(Persist)])


@lru_cache(maxsize=4096)
def chain_of(body: bytes, cluster: Cluster) -> Chain:
    return decode_chain_untrusted(body, cluster)


def announced_but_not_stored(world: World) -> Iterator[str]:
    """What some node knows of another that is not on the other's disk."""
    disks = {
        machine.membership.identity.node: {item.key: item for item in machine.stored.items}
        for machine in world.machines.values()
    }
    for machine in world.live():
        own = machine.membership.identity.node
        for item in machine.engine.parts.store.items():
            for node, disk in disks.items():
                if node == own:
                    continue
                on_disk = disk.get(item.key)
                if item.key == node_key(node) and (on_disk is None or on_disk < item):
                    yield f"record {item.version} of {node[:4].hex()} is at {machine.name}"
                if block_of_key(item.key) is None:
                    continue
                signed = chain_of(item.body, world.cluster)
                known = chain_of(on_disk.body, world.cluster) if on_disk else None
                kept = () if known is None else known.deeds
                cut = 0 if known is None else known.base_sequence  # a base stands for what was
                given = [
                    deed for deed in signed.deeds if deed.giver == node and deed.sequence > cut
                ]
                if lost := [deed for deed in given if deed not in kept]:
                    yield f"{lost} is at {machine.name}"


def check(world: World) -> None:
    """All invariants hold, and nobody knows what its maker has not stored."""
    world.check_invariants()
    assert list(announced_but_not_stored(world)) == []
