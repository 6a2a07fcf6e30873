"""The allocator under random use, against a plain list of addresses and when they were freed."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from overlay.errors import RefusedError, StateError
from overlay.ipam.allocator import Allocator, Slot
from overlay.ipam.plan import BlockPlan
from overlay.types import BlockIndex
from tests.support.clusters import make_cluster

PLAN = BlockPlan(make_cluster("10.1.0.0/24", "fd00::/48", block_prefix=29))  # blocks of 5 pods
QUARANTINE = 60.0
BLOCKS = [BlockIndex(0), BlockIndex(1), BlockIndex(2)]
HOSTS = range(2, 7)


class AllocatorMachine(RuleBasedStateMachine):
    """The oracle: blocks in order, pods by name, and for each address who freed it last and when.

    Which addresses may be given is counted out anew each time, over all of them.
    """

    pods_ = st.sampled_from([f"p{number}" for number in range(12)])
    blocks_ = st.sampled_from(BLOCKS)

    def __init__(self) -> None:
        super().__init__()
        self.allocator = Allocator(PLAN, QUARANTINE)
        self.blocks: list[BlockIndex] = []
        self.pods: dict[str, Slot] = {}
        self.freed: dict[Slot, tuple[str, float]] = {}
        self.now = 0.0

    def free_for(self, pod: str | None) -> list[Slot]:
        """Addresses that this pod may have; None: any pod."""
        return [
            slot
            for slot in (Slot(block, host) for block in self.blocks for host in HOSTS)
            if slot not in self.pods.values()
            and (
                slot not in self.freed
                or self.freed[slot][0] == pod
                or self.now - self.freed[slot][1] >= QUARANTINE
            )
        ]

    @rule(seconds=st.sampled_from([1.0, 20.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(block=blocks_)
    def add_block(self, block: BlockIndex) -> None:
        self.allocator.add_block(block)
        if block not in self.blocks:
            self.blocks.append(block)

    @rule(block=blocks_)
    def remove_block(self, block: BlockIndex) -> None:
        if block in self.blocks and all(slot.block != block for slot in self.pods.values()):
            self.allocator.remove_block(block)
            self.blocks.remove(block)
            self.freed = {slot: who for slot, who in self.freed.items() if slot.block != block}
        else:
            with pytest.raises(StateError):
                self.allocator.remove_block(block)

    @rule(pod=pods_)
    def allocate(self, pod: str) -> None:
        free = self.free_for(None)
        if pod in self.pods:
            with pytest.raises(StateError):
                self.allocator.allocate(pod, None, self.now)
        elif free:
            assert self.allocator.allocate(pod, None, self.now) == free[0]
            self.pods[pod] = free[0]
        else:
            with pytest.raises(RefusedError):
                self.allocator.allocate(pod, None, self.now)

    @rule(pod=pods_, block=blocks_, host=st.integers(0, 7), six=st.booleans())
    def allocate_wanted(self, pod: str, block: BlockIndex, host: int, *, six: bool) -> None:
        address = PLAN.address6(block, host) if six else PLAN.address4(block, host)
        slot = Slot(block, host)
        if pod not in self.pods and slot in self.free_for(pod):
            assert self.allocator.allocate(pod, address, self.now) == slot
            self.pods[pod] = slot
        else:
            with pytest.raises((RefusedError, StateError)):
                self.allocator.allocate(pod, address, self.now)

    @rule(pod=pods_)
    def free(self, pod: str) -> None:
        if pod in self.pods:
            self.allocator.free(pod, self.now)
            self.freed[self.pods.pop(pod)] = (pod, self.now)
        else:
            with pytest.raises(StateError):
                self.allocator.free(pod, self.now)

    @rule()
    def restart(self) -> None:
        resting = self.allocator.resting(self.now)
        self.allocator = Allocator(PLAN, QUARANTINE)
        for block in self.blocks:
            self.allocator.add_block(block)
        for pod, slot in self.pods.items():
            self.allocator.restore(pod, *slot)
        for rest in reversed(resting):  # stored in any order
            assert self.allocator.rest(rest, self.now)

    @rule(pod=pods_, block=blocks_, host=st.integers(0, 7))
    def restore(self, pod: str, block: BlockIndex, host: int) -> None:
        slot = Slot(block, host)
        taken = slot in self.pods.values() or pod in self.pods
        if block in self.blocks and host in HOSTS and not taken:
            assert self.allocator.restore(pod, block, host) == slot
            self.pods[pod] = slot
        else:
            with pytest.raises(StateError):
                self.allocator.restore(pod, block, host)

    @invariant()
    def agrees(self) -> None:
        self.allocator.check_invariants()
        assert self.allocator.blocks == tuple(self.blocks)
        assert {pod: self.allocator.slot(pod) for pod in self.pods} == self.pods
        assert len(set(self.pods.values())) == len(self.pods)
        for block in BLOCKS:
            held = [slot for slot in self.pods.values() if slot.block == block]
            assert self.allocator.pods_in(block) == len(held)


TestAllocatorMachine = AllocatorMachine.TestCase
TestAllocatorMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
