"""Which pod has which address, on this node.

Pods get the lowest free host number of the first block in use that has one. A number that was
given back rests for `QUARANTINE` seconds first:

    free --allocate--> taken --free--> resting --60 s--> free

Nothing here is durable or announced: the caller stores the result before anyone hears of it, and
gives it back by `restore` after a restart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Final, NamedTuple

from overlay.errors import RefusedError, StateError
from overlay.ipam.plan import FIRST_POD_HOST, NODE_HOST, BlockPlan
from overlay.ipam.titles import Titles
from overlay.types import Address, BlockIndex, NodeId

QUARANTINE: Final = 60.0
"""Seconds before the address of a deleted pod is used again. Others may still send to it: they
retry, and cache names (CoreDNS, as Kubernetes sets it up, for 30 s). What they send must not reach
a stranger. A restart of the node forgets this."""

_ROOM_TO_RETURN: Final = 2
"""A block is given away only while its chain has room for this deed and the one that brings it
back; otherwise it would be stuck with its taker for ever."""


class Slot(NamedTuple):
    """One place for a pod: it names an IPv4 and an IPv6 address (`overlay.ipam.plan`)."""

    block: BlockIndex
    host: int


class _Resting(NamedTuple):
    """A host number that was given back."""

    pod: str
    until: float


class Allocator:
    """The addresses of one node's pods.

    Error contract: a call that raises has changed nothing.

    Args:
        plan: block numbers <-> addresses.
    """

    __slots__ = ("_closed", "_plan", "_pods", "_resting", "_taken")

    def __init__(self, plan: BlockPlan) -> None:
        self._plan = plan
        self._pods: dict[str, Slot] = {}
        self._taken: dict[BlockIndex, dict[int, str]] = {}  # block in use -> host -> pod
        self._resting: dict[Slot, _Resting] = {}
        self._closed: set[BlockIndex] = set()  # in use, but nothing is allocated from them

    # -- blocks ----------------------------------------------------------------------------------

    @property
    def blocks(self) -> tuple[BlockIndex, ...]:
        """The blocks in use, in the order they were added."""
        return tuple(self._taken)

    def add_block(self, block: BlockIndex) -> None:
        """Allocate from `block` too, when those before it are full."""
        self._taken.setdefault(block, {})

    def remove_block(self, block: BlockIndex) -> None:
        """Allocate from `block` no longer.

        Raises:
            StateError: it is not in use, or pods have addresses in it. Nothing else.
        """
        if self._taken.get(block, block):
            raise StateError(f"block {block} is not in use, or has pods")
        del self._taken[block]
        self._closed.discard(block)
        self._resting = {
            slot: resting for slot, resting in self._resting.items() if slot.block != block
        }

    def close_all_but(self, blocks: Collection[BlockIndex]) -> None:
        """Allocate from these of the blocks in use alone; pods keep what they have."""
        self._closed = {block for block in self._taken if block not in blocks}

    def free_slots(self, now: float) -> int:
        """How many pods could be given an address at `now`."""
        full = self._plan.capacity
        resting = Counter(
            slot.block for slot, resting in self._resting.items() if resting.until > now
        )
        return sum(
            full - len(taken) - resting[block]
            for block, taken in self._taken.items()
            if block not in self._closed
        )

    def is_empty(self, block: BlockIndex, now: float) -> bool:
        """Whether no address of `block` is taken, or rests, at `now`."""
        resting = any(
            slot.block == block and resting.until > now for slot, resting in self._resting.items()
        )
        return not self._taken.get(block) and not resting

    def pods_in(self, block: BlockIndex) -> int:
        """How many pods have an address in `block`."""
        return len(self._taken.get(block, {}))

    # -- pods ------------------------------------------------------------------------------------

    def slot(self, pod: str) -> Slot | None:
        """Where `pod` is; None if it has no address."""
        return self._pods.get(pod)

    def allocate(self, pod: str, address: Address | None, now: float) -> Slot:
        """Give `pod` an address: `address`, or the lowest free one.

        Raises:
            RefusedError: `no-free-address`; for a wanted one `address-not-ours` or
                `address-taken`.
            StateError: `pod` has an address. Nothing else.
        """
        if pod in self._pods:
            raise StateError(f"pod {pod} has an address already")
        slot = self._lowest_free(now) if address is None else self._wanted(pod, address, now)
        self._take(pod, slot)
        return slot

    def restore(self, pod: str, block: BlockIndex, host: int) -> Slot:
        """Note an address that `pod` was given before a restart.

        Raises:
            StateError: the block is not in use, or the address cannot be this pod's. Nothing
                else.
        """
        taken = self._taken.get(block)
        if taken is None or host in taken or pod in self._pods or not self._plan.is_pod_host(host):
            raise StateError(f"pod {pod} cannot have host {host} of block {block}")
        slot = Slot(block, host)
        self._take(pod, slot)
        return slot

    def free(self, pod: str, now: float) -> None:
        """Take the pod's address back; it rests before it is used again.

        Raises:
            StateError: `pod` has no address. Nothing else.
        """
        slot = self._pods.pop(pod, None)
        if slot is None:
            raise StateError(f"pod {pod} has no address")
        del self._taken[slot.block][slot.host]
        self._resting[slot] = _Resting(pod, now + QUARANTINE)

    def _take(self, pod: str, slot: Slot) -> None:
        self._pods[pod] = slot
        self._taken[slot.block][slot.host] = pod
        self._resting.pop(slot, None)

    def _lowest_free(self, now: float) -> Slot:
        self._resting = {
            slot: resting for slot, resting in self._resting.items() if resting.until > now
        }
        for block, taken in self._taken.items():
            if block in self._closed:
                continue
            for host in range(FIRST_POD_HOST, self._plan.last_pod_host + 1):
                slot = Slot(block, host)
                if host not in taken and slot not in self._resting:
                    return slot
        raise RefusedError(
            "no-free-address",
            "every pod address of this node is taken or was freed a moment ago",
            "delete a pod, or try again in a minute",
        )

    def _wanted(self, pod: str, address: Address, now: float) -> Slot:
        block, host = self._plan.index_of(address), self._plan.host_of(address)
        if block is None or host is None or block not in self._taken.keys() - self._closed:
            fix = "choose one inside a block of this node, see muslin get blocks"
            raise RefusedError(
                "address-not-ours", f"{address} is not an address of this node's", fix
            )
        if not self._plan.is_pod_host(host):
            whose = "the node's own" if host == NODE_HOST else "reserved"
            raise RefusedError("address-taken", f"{address} is {whose}", "choose another")
        holder = self._taken[block].get(host)
        if holder is not None:
            raise RefusedError("address-taken", f"pod {holder} has {address}", "choose another")
        slot = Slot(block, host)
        resting = self._resting.get(slot)
        # The same pod may come back to its address: whoever still remembers it means this pod.
        if resting is not None and resting.until > now and resting.pod != pod:
            fix = f"choose another, or try again in {resting.until - now:.0f} s"
            raise RefusedError("address-taken", f"{address} was just freed by {resting.pod}", fix)
        return slot

    def check_invariants(self) -> None:
        """Assert what must always hold; called by tests after each step."""
        taken = {
            pod: Slot(block, host)
            for block, hosts in self._taken.items()
            for host, pod in hosts.items()
        }
        assert taken == self._pods
        assert all(self._plan.is_pod_host(slot.host) for slot in taken.values())
        assert not self._resting.keys() & set(taken.values())
        assert all(slot.block in self._taken for slot in self._resting)
        assert self._closed <= self._taken.keys()


def pick_block_to_give(
    titles: Titles, node: NodeId, stays: Collection[BlockIndex]
) -> BlockIndex | None:
    """The block that `node` gives to a node that asks; None if it has none to spare.

    The one that has moved least often, to spread transfers over all blocks; of several the lowest.

    Args:
        titles: who owns what.
        node: the giver.
        stays: its blocks that must stay.
    """
    # Blocks that never moved come first and have the shortest chain of all. Looking at all 65,536
    # of a large cluster for each request would take longer than everything else about it.
    spare = titles.spare(node, stays)
    first = next(spare, None)
    if first is None:
        return None
    if not titles.chain(first).moved and titles.room(first) >= _ROOM_TO_RETURN:
        return first
    fitting = (block for block in (first, *spare) if titles.room(block) >= _ROOM_TO_RETURN)
    return min(fitting, key=lambda block: (titles.chain(block).sequence, block), default=None)
