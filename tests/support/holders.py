"""Nodes that are nothing but what they hold, and know the cluster by what they were told."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from overlay.catalog.catalog import Catalog
from overlay.catalog.records import NodeRecord, open_record_untrusted
from overlay.config import Limits
from overlay.errors import RefusedError
from overlay.holdings import Holdings
from overlay.ipam.plan import BlockPlan
from overlay.own_record import OwnRecord
from overlay.state import NodeState, StoredPod
from overlay.wire.items import Item
from tests.support.clusters import WALL, make_cluster, make_identity

CLUSTER = make_cluster("10.244.0.0/20")
SMALL = make_cluster("10.244.0.0/27", "fd4d:75:736c::/48", block_prefix=29)
"""Four blocks with five pod addresses each."""


class Node:
    """One node's holdings, and the catalog in which its items take effect."""

    def __init__(self, number: int = 0, *, cluster=CLUSTER, state=None, limits=None) -> None:
        self.cluster = cluster
        self.identity = make_identity(number, cluster)
        self.id = self.identity.node
        self.plan = BlockPlan(cluster)
        self.limits = limits or Limits()
        self.catalog = Catalog(cluster, self.plan, self.limits)
        self.items: dict[bytes, Item] = {}
        state = state or NodeState(boot=1)
        self.learn(*state.items)
        self.holdings = Holdings(
            identity=self.identity,
            catalog=self.catalog,
            plan=self.plan,
            state=state,
        )
        self.record = OwnRecord(
            identity=self.identity,
            catalog=self.catalog,
            plan=self.plan,
            holdings=self.holdings,
            boot=state.boot,
            software="1.2.3",
            is_authority=lambda: number == 0,
            limits=self.limits,
        )

    def learn(self, *items: Item) -> None:
        for item in items:
            self.catalog.apply(item)
            self.items[item.key] = item

    def announce(self) -> NodeRecord:
        """The record as others read it, after all their checks."""
        item = self.record.make()
        self.learn(item)
        return open_record_untrusted(item, self.cluster, self.plan, Limits())

    def add(self, name: str, address: str = "", now: float = 0.0) -> StoredPod:
        wanted = (IPv6Address if ":" in address else IPv4Address)(address) if address else None
        return self.holdings.add_pod(name, f"/run/netns/{name}", wanted, WALL + now, now)

    def stored(self, *, epoch: float = 0.0) -> NodeState:
        """What would be on its disk, but for the items."""
        return self.holdings.stored(self.record.versions.boot, epoch=epoch)

    def restarted(self) -> Node:
        state = replace(self.stored(), items=tuple(self.items.values()))
        again = NodeState.from_entries(state.entries())
        return Node(
            0 if self.id == self.cluster.genesis else 1,
            cluster=self.cluster,
            state=NodeState(
                again.boot + 1,
                again.pods,
                again.items,
                blocks_in_use=again.blocks_in_use,
                left=again.left,
            ),
        )


def founder(**arguments: object) -> Node:
    """The founding node with its first block in use."""
    node = Node(**arguments)
    assert node.holdings.use_a_block()
    return node


def refusal(call, *arguments: object) -> RefusedError:
    """Call it; how it was refused."""
    with pytest.raises(RefusedError) as caught:
        call(*arguments)
    return caught.value
