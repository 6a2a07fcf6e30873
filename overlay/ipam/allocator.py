"""Which pod has which address, on this node.

Pods get the lowest free host number of the first block in use that has one. A number that was
given back rests for a while first (`Timing.quarantine`):

    free --allocate--> taken --free--> resting --60 s--> free

Others may still send to the address of a deleted pod: they retry, and cache names (CoreDNS, as
Kubernetes sets it up, for 30 s). What they send must not reach a stranger.

Each block has two bitmaps, taken and resting, as integers: bit h is host h. So the lowest free host
is one expression over the words of an integer, however full the block is.

Nothing here is durable or announced: the caller stores the result before anyone hears of it, and
gives it back by `restore` and `rest` after a restart.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from overlay.errors import RefusedError, StateError
from overlay.ipam.plan import FIRST_POD_HOST, NODE_HOST, BlockPlan
from overlay.ipam.titles import Titles
from overlay.noted import Noted
from overlay.types import Address, BlockIndex, NodeId

_ROOM_TO_RETURN: Final = 2
"""A block is given away only while its chain has room for this deed and the one that brings it
back; otherwise it would be stuck with its taker for ever."""


class Slot(NamedTuple):
    """One place for a pod: it names an IPv4 and an IPv6 address (`overlay.ipam.plan`)."""

    block: BlockIndex
    host: int


class Resting(NamedTuple):
    """A slot that was given back, and until when it rests, in monotonic seconds."""

    pod: str
    slot: Slot
    until: float


@dataclass(slots=True)
class _Block:
    """One block in use."""

    taken: int = 0
    resting: int = 0
    pods: dict[int, str] = field(default_factory=dict)
    """Host number to pod: those whose bit is set in `taken`."""


class Allocator:
    """The addresses of one node's pods.

    Error contract: a call that raises has changed nothing.

    Args:
        plan: block numbers <-> addresses.
        quarantine: seconds that an address rests.

    Attributes:
        rests: the slots that rest, and those whose rest has ended unnoticed, in the order in which
            they end. For looking at, and for storing.
    """

    __slots__ = (
        "_blocks",
        "_closed",
        "_plan",
        "_pod_hosts",
        "_pods",
        "_quarantine",
        "rests",
    )

    def __init__(self, plan: BlockPlan, quarantine: float) -> None:
        self._plan = plan
        self._quarantine = quarantine
        self._pod_hosts = (2 << plan.last_pod_host) - (1 << FIRST_POD_HOST)  # bits that pods have
        self._pods: dict[str, Slot] = {}
        self._blocks: dict[BlockIndex, _Block] = {}
        self.rests: Noted[Slot, Resting] = Noted()
        self._closed: set[BlockIndex] = set()  # in use, but nothing is allocated from them

    # -- blocks ----------------------------------------------------------------------------------

    @property
    def blocks(self) -> tuple[BlockIndex, ...]:
        """The blocks in use, in the order they were added."""
        return tuple(self._blocks)

    def add_block(self, block: BlockIndex) -> None:
        """Allocate from `block` too, when those before it are full."""
        self._blocks.setdefault(block, _Block())

    def remove_block(self, block: BlockIndex) -> None:
        """Allocate from `block` no longer.

        Raises:
            StateError: it is not in use, or pods have addresses in it. Nothing else.
        """
        if block not in self._blocks or self._blocks[block].pods:
            raise StateError(f"block {block} is not in use, or has pods")
        del self._blocks[block]
        self._closed.discard(block)
        for slot in [slot for slot in self.rests if slot.block == block]:
            del self.rests[slot]

    def clear(self) -> None:
        """Forget every block, and with them every address."""
        self._pods.clear()
        self._blocks.clear()
        self.rests.clear()
        self._closed.clear()

    def close_all_but(self, blocks: Collection[BlockIndex]) -> None:
        """Allocate from these of the blocks in use alone; pods keep what they have."""
        self._closed = {block for block in self._blocks if block not in blocks}

    def free_slots(self, now: float) -> int:
        """How many pods could be given an address at `now`."""
        self._wake(now)
        return sum(
            self._plan.capacity - (block.taken | block.resting).bit_count()
            for index, block in self._blocks.items()
            if index not in self._closed
        )

    def is_empty(self, block: BlockIndex, now: float) -> bool:
        """Whether no address of `block` is taken, or rests, at `now`."""
        self._wake(now)
        held = self._blocks.get(block)
        return held is None or not held.taken | held.resting

    def pods_in(self, block: BlockIndex) -> int:
        """How many pods have an address in `block`."""
        return len(self._blocks[block].pods) if block in self._blocks else 0

    # -- pods ------------------------------------------------------------------------------------

    def slot(self, pod: str) -> Slot | None:
        """Where `pod` is; None if it has no address."""
        return self._pods.get(pod)

    def pod_at(self, slot: Slot) -> str:
        """Which pod is there; empty if none is."""
        block = self._blocks.get(slot.block)
        return "" if block is None else block.pods.get(slot.host, "")

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
        held = self._blocks.get(block)
        if held is None or host in held.pods or pod in self._pods:
            raise StateError(f"pod {pod} cannot have host {host} of block {block}")
        if not self._plan.is_pod_host(host):
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
        block = self._blocks[slot.block]
        del block.pods[slot.host]
        block.taken &= ~(1 << slot.host)
        self._lay_to_rest(Resting(pod, slot, now + self._quarantine))

    def pass_on(self, pod: str, taker: str) -> Slot:
        """Let `taker` have the address of `pod` from now on; it does not rest in between.

        Raises:
            StateError: `pod` has no address, or `taker` has one. Nothing else.
        """
        if pod not in self._pods or taker in self._pods:
            raise StateError(f"{pod} has no address, or {taker} has one already")
        slot = self._pods.pop(pod)
        self._blocks[slot.block].pods[slot.host] = taker
        self._pods[taker] = slot
        return slot

    def is_open(self, block: BlockIndex) -> bool:
        """Whether addresses of `block` may be given: it is in use, and not closed."""
        return block in self._blocks and block not in self._closed

    # -- resting ---------------------------------------------------------------------------------

    def rest(self, resting: Resting, now: float) -> bool:
        """Let a slot rest that this allocator did not free: as stored before a restart.

        It rests for a quarantine at most, so a clock that was set back delays nothing for long.
        Returns False, and does nothing, if the slot is taken, no pod's, or in no block of ours.
        """
        block, host = self._blocks.get(resting.slot.block), resting.slot.host
        if block is None or not self._plan.is_pod_host(host) or host in block.pods:
            return False
        self._lay_to_rest(resting._replace(until=min(resting.until, now + self._quarantine)))
        return True

    def resting(self, now: float) -> tuple[Resting, ...]:
        """The slots that rest, those that end first in front."""
        self._wake(now)
        return tuple(self.rests.values())

    def _lay_to_rest(self, resting: Resting) -> None:
        self._end_rest(resting.slot)  # so that it stands at the end
        self._blocks[resting.slot.block].resting |= 1 << resting.slot.host
        last = next(reversed(self.rests.values()), resting)
        self.rests[resting.slot] = resting
        if last.until > resting.until:  # never for one that was freed just now
            ordered = sorted(self.rests.values(), key=lambda one: one.until)
            self.rests.clear()
            self.rests |= {one.slot: one for one in ordered}

    def _wake(self, now: float) -> None:
        while self.rests:
            resting = next(iter(self.rests.values()))
            if resting.until > now:
                return
            self._end_rest(resting.slot)

    def _end_rest(self, slot: Slot) -> None:
        if self.rests.pop(slot, None) is not None:
            self._blocks[slot.block].resting &= ~(1 << slot.host)

    # -- choosing --------------------------------------------------------------------------------

    def _take(self, pod: str, slot: Slot) -> None:
        self._end_rest(slot)
        block = self._blocks[slot.block]
        self._pods[pod] = slot
        block.pods[slot.host] = pod
        block.taken |= 1 << slot.host

    def _lowest_free(self, now: float) -> Slot:
        self._wake(now)
        for index, block in self._blocks.items():
            free = self._pod_hosts & ~(block.taken | block.resting)
            if free and index not in self._closed:
                return Slot(index, (free & -free).bit_length() - 1)
        raise no_free_address()

    def _wanted(self, pod: str, address: Address, now: float) -> Slot:
        block, host = self._plan.index_of(address), self._plan.host_of(address)
        if block is None or host is None or not self.is_open(block):
            fix = "choose one inside a block of this node, see muslin get blocks"
            raise RefusedError(
                "address-not-ours", f"{address} is not an address of this node's", fix
            )
        if not self._plan.is_pod_host(host):
            whose = "the node's own" if host == NODE_HOST else "reserved"
            raise RefusedError("address-taken", f"{address} is {whose}", "choose another")
        holder = self._blocks[block].pods.get(host)
        if holder is not None:
            raise RefusedError("address-taken", f"pod {holder} has {address}", "choose another")
        slot = Slot(block, host)
        resting = self.rests.get(slot)
        # The same pod may come back to its address: whoever still remembers it means this pod.
        if resting is not None and resting.until > now and resting.pod != pod:
            fix = f"choose another, or try again in {resting.until - now:.0f} s"
            raise RefusedError("address-taken", f"{address} was just freed by {resting.pod}", fix)
        return slot

    def check_invariants(self) -> None:
        """Assert what must always hold; called by tests after each step."""
        taken = {
            pod: Slot(index, host)
            for index, block in self._blocks.items()
            for host, pod in block.pods.items()
        }
        assert taken == self._pods
        assert all(self._plan.is_pod_host(slot.host) for slot in taken.values())
        assert not self.rests.keys() & set(taken.values())
        for index, block in self._blocks.items():
            assert block.taken == sum(1 << host for host in block.pods)
            hosts = [slot.host for slot in self.rests if slot.block == index]
            assert block.resting == sum(1 << host for host in hosts)
        assert all(slot.block in self._blocks for slot in self.rests)
        ends = [resting.until for resting in self.rests.values()]
        assert ends == sorted(ends)
        assert self._closed <= self._blocks.keys()


def no_free_address() -> RefusedError:
    """What is raised when there is no address left."""
    return RefusedError(
        "no-free-address",
        "every pod address of this node is taken or was freed a moment ago",
        "delete a pod, or try again in a minute",
    )


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
    if not any(titles.moves(first)) and titles.room(first) >= _ROOM_TO_RETURN:
        return first
    fitting = (block for block in (first, *spare) if titles.room(block) >= _ROOM_TO_RETURN)
    return min(fitting, key=lambda block: (sum(titles.moves(block)), block), default=None)
