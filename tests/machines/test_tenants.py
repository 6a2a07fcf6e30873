"""Pods and reservations under random use: no address is ever given to two.

The oracle is who may use each address: a pod, an owner's reservation, both if they are of one
owner, or nobody until a moment.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from overlay.errors import RefusedError
from overlay.ipam.allocator import Allocator, Slot
from overlay.ipam.plan import BlockPlan
from overlay.resting import restore_rests, stored_rest
from overlay.state import StoredPod
from overlay.tenants import Tenants
from overlay.types import BlockIndex
from tests.support.clusters import make_cluster

PLAN = BlockPlan(make_cluster("10.1.0.0/24", "fd00::/48", block_prefix=29))  # blocks of 5 pods
QUARANTINE = 60.0
BLOCKS = [BlockIndex(0), BlockIndex(1)]
HOSTS = range(2, 7)


@dataclass
class Use:
    """Who uses one address."""

    pod: str = ""
    whose: str = ""
    """Owner of the pod."""
    reserved: str = ""
    """Owner of the reservation."""
    last: str = ""
    """Whose it was last, as a pod's name or an owner with an @."""
    until: float = 0.0


class TenantsMachine(RuleBasedStateMachine):
    """Ten addresses, few pods and owners: everything meets everything."""

    pods_ = st.sampled_from([f"p{number}" for number in range(8)])
    owners_ = st.sampled_from(["cni", "docker"])
    slots_ = st.builds(Slot, st.sampled_from(BLOCKS), st.sampled_from(HOSTS))

    def __init__(self) -> None:
        super().__init__()
        self.uses = {Slot(block, host): Use() for block in BLOCKS for host in HOSTS}
        self.now = 0.0
        self.start((), ())

    def start(self, pods, reserved, rests=()) -> None:
        self.allocator = Allocator(PLAN, QUARANTINE)
        for block in BLOCKS:
            self.allocator.add_block(block)
        self.tenants = Tenants(PLAN, self.allocator, pods, reserved)
        restore_rests(self.allocator, rests, 0.0, self.now)

    def is_free(self, slot: Slot, asks: str = "") -> bool:
        use = self.uses[slot]
        rests = use.until > self.now and use.last != asks
        return not use.pod and not use.reserved and not rests

    def slot_of(self, pod: str) -> Slot | None:
        return next((slot for slot, use in self.uses.items() if use.pod == pod), None)

    @rule(seconds=st.sampled_from([1.0, 20.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(pod=pods_, owner=owners_, slot=st.none() | slots_)
    def add(self, pod: str, owner: str, slot: Slot | None) -> None:
        if self.slot_of(pod) is not None:
            return
        try:
            address = None if slot is None else PLAN.address4(*slot)
            given = self.tenants.take(pod, address, owner, self.now)
        except RefusedError:
            if slot is None:
                assert not any(map(self.is_free, self.uses))
            else:
                use = self.uses[slot]
                assert not self.is_free(slot, pod)
                assert use.pod or use.reserved != owner
            return
        assert given == (slot or given)
        use = self.uses[given]
        assert self.is_free(given, pod if slot else "") or (use.reserved == owner and not use.pod)
        assert slot is not None or not use.reserved
        use.pod, use.whose, use.until = pod, owner, 0.0
        self.tenants.add(StoredPod(pod, "", given.block, given.host, 0, owner))

    @rule(pod=pods_)
    def remove(self, pod: str) -> None:
        slot = self.slot_of(pod)
        if slot is None:
            return
        self.tenants.remove(pod, self.now)
        use = self.uses[slot]
        use.pod = use.whose = ""
        if not use.reserved:
            use.last, use.until = pod, self.now + QUARANTINE

    @rule(owner=owners_, slot=st.none() | slots_)
    def reserve(self, owner: str, slot: Slot | None) -> None:
        try:
            address = None if slot is None else PLAN.address6(*slot)
            held = self.tenants.reserve(owner, address, 0.0, self.now)
        except RefusedError:
            if slot is None:
                assert not any(map(self.is_free, self.uses))
            else:
                assert not self.is_free(slot, f"{owner}@")
            return
        given = Slot(held.block, held.host)
        assert given == (slot or given)
        assert self.is_free(given, f"{owner}@" if slot else "")
        self.uses[given].reserved, self.uses[given].until = owner, 0.0

    @rule(owner=owners_, slot=slots_)
    def release(self, owner: str, slot: Slot) -> None:
        use = self.uses[slot]
        there = self.tenants.release(owner, PLAN.address4(*slot), self.now)
        assert there == (use.reserved == owner)
        if there:
            use.reserved = ""
            if not use.pod:
                use.last, use.until = f"{owner}@", self.now + QUARANTINE

    @rule()
    def restart(self) -> None:
        rests = [stored_rest(rest, 0.0) for rest in self.allocator.rests.values()]
        self.start(tuple(self.tenants.pods.values()), tuple(self.tenants.reserved.values()), rests)

    @invariant()
    def agrees(self) -> None:
        self.allocator.check_invariants()
        self.tenants.check_invariants()
        held = {Slot(pod.block, pod.host): pod.name for pod in self.tenants.pods.values()}
        assert len(held) == len(self.tenants.pods)
        assert held == {slot: use.pod for slot, use in self.uses.items() if use.pod}
        reserved = {slot: one.owner for slot, one in self.tenants.reserved.items()}
        assert reserved == {slot: use.reserved for slot, use in self.uses.items() if use.reserved}
        for use in self.uses.values():
            assert not (use.pod and use.reserved) or use.whose == use.reserved
        free = sum(map(self.is_free, self.uses))
        assert self.allocator.free_slots(self.now) == free


TestTenantsMachine = TenantsMachine.TestCase
TestTenantsMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
