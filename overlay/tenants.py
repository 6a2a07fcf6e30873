"""Who has which address of this node: pods, and reservations that owners hold for theirs.

    reserve(owner) ----> address held by the reservation <--------------+
                              |                                         |
                    add(pod of that owner, that address)        remove(pod), while it stands
                              v                                         |
    add(pod) --------> address held by the pod ------------------------'
                              |
                    remove(pod), no reservation ----> rests

A reservation is an address that somebody who hands out addresses himself has asked for: Docker asks
for one, then for the pod that has it, and gives both back one by one, in any order. It is stored,
outlives restarts and reboots (whoever asked remembers it, too), and ends only when its owner says
so; then the address rests like that of a pod. It holds the address under a name that no pod can
have, so the allocator needs to know nothing of it. There are as many as there are addresses.

Whoever reserves an address *by number* that he gave back a moment ago gets it again: he names it,
so he means what had it, a container with a fixed address that is made anew. The quarantine is for
addresses that are given by chance.

Error contract: an operation that raises has changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from overlay.attachment import Attachment, check_text
from overlay.errors import ConfigError, RefusedError
from overlay.ipam.allocator import Allocator, Slot
from overlay.ipam.plan import BlockPlan
from overlay.noted import Noted
from overlay.state import MAX_NETNS, MAX_OWNER, StoredPod, StoredReservation
from overlay.types import Address
from overlay.wire.certificate import check_name

_FIX_ADDRESS: Final = "choose another"


class Tenants:
    """Pods and reservations of one node, and the allocator that both get addresses from.

    Args:
        plan: block numbers <-> addresses.
        allocator: has the blocks in use already, and nothing else.
        pods: as stored.
        reserved: as stored.

    Attributes:
        pods: by name. For looking at; `add` and `remove` change it.
        reserved: by slot. For looking at.
    """

    def __init__(
        self,
        plan: BlockPlan,
        allocator: Allocator,
        pods: Iterable[StoredPod],
        reserved: Iterable[StoredReservation],
    ) -> None:
        self._plan, self._allocator = plan, allocator
        self.pods: Noted[str, StoredPod] = Noted()
        self.reserved: Noted[Slot, StoredReservation] = Noted()
        self._containers: dict[tuple[str, str], str] = {}
        for pod in pods:
            allocator.restore(pod.name, pod.block, pod.host)
            self.add(pod)
        taken = {Slot(pod.block, pod.host) for pod in self.pods.values()}
        for held in reserved:
            slot = Slot(held.block, held.host)
            self.reserved[slot] = held
            if slot not in taken:
                allocator.restore(self._holder(held.owner, slot), *slot)

    def pod_of(self, container: str, interface: str) -> StoredPod | None:
        """The pod that a runtime knows under its container's id and interface; None if none."""
        name = self._containers.get((container, interface))
        return None if name is None else self.pods[name]

    # -- pods ----------------------------------------------------------------------------------

    def check(self, name: str, netns: str, owner: str, said: Attachment) -> None:
        """Check what does not depend on addresses.

        Raises:
            ConfigError: name, path, owner or attachment is not one.
            RefusedError: `pod-exists`, `exists`, `other-network`, `port-taken`. Nothing else.
        """
        check_name(name)
        if len(netns) > MAX_NETNS or not netns.isprintable():
            raise ConfigError("the path of the namespace is too long or not printable", "--netns")
        _check_owner(owner)
        said.check()
        if name in self.pods:
            raise RefusedError("pod-exists", f"pod {name} exists", "choose another name")
        other = self.pod_of(said.container, said.interface)
        if other is not None:
            why = f"pod {other.name} is {said.interface} of that container"
            raise RefusedError("exists", why, "delete it first, or name another interface")
        if said.network:
            self._check_network(owner, said.network)
        if said.ports:
            self._check_ports(said)

    def _check_network(self, owner: str, network: str) -> None:
        for pod in self.pods.values():
            other = pod.attachment.network
            if pod.owner == owner and other and other != network:
                why = f"pod {pod.name} is of network {other}, and a node has one pod network"
                fix = f"attach to {other}, or delete the pods of it first"
                raise RefusedError("other-network", why, fix)

    def _check_ports(self, said: Attachment) -> None:
        for pod in self.pods.values():
            for held in pod.attachment.ports:
                if any(held.collides(port) for port in said.ports):
                    why = f"pod {pod.name} has port {held.host_port}/{held.protocol} of this node"
                    raise RefusedError("port-taken", why, "choose another port")

    def add(self, pod: StoredPod) -> StoredPod:
        """Note a pod whose address `take` has given; returns it."""
        self.pods[pod.name] = pod
        if pod.attachment.container:
            self._containers[pod.attachment.container, pod.attachment.interface] = pod.name
        return pod

    def take(self, pod: str, address: Address | None, owner: str, now: float) -> Slot:
        """Give `pod` an address: `address`, which its owner may have reserved, or a free one.

        Raises:
            RefusedError: the allocator's codes. Nothing else.
        """
        slot = None if address is None else self._slot(address)
        held = None if slot is None else self.reserved.get(slot)
        if slot is None or held is None or not self._allocator.is_open(slot.block):
            return self._allocator.allocate(pod, address, now)
        holder = self._holder(held.owner, slot)
        if self._allocator.slot(holder) is None:  # a pod has it, and is named
            return self._allocator.allocate(pod, address, now)
        if held.owner != owner:
            why = f"{address} is reserved by {held.owner}"
            raise RefusedError("address-taken", why, _FIX_ADDRESS)
        return self._allocator.pass_on(holder, pod)

    def remove(self, name: str, now: float) -> StoredPod:
        """Take a pod's addresses back, or give them back to its owner's reservation.

        Raises:
            RefusedError: `no-such-pod`. Nothing else.
        """
        pod = self.pods.pop(name, None)
        if pod is None:
            known = ", ".join(sorted(self.pods)) or "it has none"
            raise RefusedError("no-such-pod", f"no pod {name} on this node", f"its pods: {known}")
        if pod.attachment.container:
            del self._containers[pod.attachment.container, pod.attachment.interface]
        slot = Slot(pod.block, pod.host)
        if slot in self.reserved:
            self._allocator.pass_on(name, self._holder(pod.owner, slot))
        else:
            self._allocator.free(name, now)
        return pod

    def clear(self) -> None:
        """Forget every pod and every reservation; the allocator forgets its blocks."""
        self.pods.clear()
        self.reserved.clear()
        self._containers.clear()
        self._allocator.clear()

    # -- reservations --------------------------------------------------------------------------

    def reserve(
        self, owner: str, address: Address | None, wall: float, now: float
    ) -> StoredReservation:
        """Hold `address`, or the lowest free one, for an owner. `wall` is Unix seconds.

        Raises:
            ConfigError: no name of an owner.
            RefusedError: the allocator's codes. Nothing else.
        """
        _check_owner(owner)
        slot = None if address is None else self._slot(address)
        if slot is not None and slot in self.reserved:
            why = f"{address} is reserved by {self.reserved[slot].owner} already"
            raise RefusedError("address-taken", why, _FIX_ADDRESS)
        # Whose it was counts for an address that rests, so a wanted one is asked for by that name.
        if slot is None:  # any, or one outside the cluster, which is refused
            slot = self._allocator.allocate(_ANY, address, now)
            self._allocator.pass_on(_ANY, self._holder(owner, slot))
        else:
            self._allocator.allocate(self._holder(owner, slot), address, now)
        held = StoredReservation(owner, slot.block, slot.host, int(wall))
        self.reserved[slot] = held
        return held

    def release(self, owner: str, address: Address, now: float) -> bool:
        """End a reservation; False if that owner has none there.

        A pod that has the address keeps it; when that goes, the address rests.
        """
        slot = self._slot(address)
        held = None if slot is None else self.reserved.get(slot)
        if slot is None or held is None or held.owner != owner:
            return False
        del self.reserved[slot]
        holder = self._holder(owner, slot)
        if self._allocator.slot(holder) is not None:
            self._allocator.free(holder, now)
        return True

    def holder_of(self, held: StoredReservation) -> str:
        """The pod that has a reserved address; empty while none does."""
        name = self._allocator.pod_at(Slot(held.block, held.host))
        return name if name in self.pods else ""

    def check_invariants(self) -> None:
        """Assert that pods, reservations and allocator agree. For tests."""
        held = {name: Slot(pod.block, pod.host) for name, pod in self.pods.items()}
        for slot, reserved in self.reserved.items():
            assert slot == (reserved.block, reserved.host)
            owners = [p.owner for p in self.pods.values() if (p.block, p.host) == slot]
            assert owners in ([], [reserved.owner])
            if not owners:
                held[self._holder(reserved.owner, slot)] = slot
        assert all(self._allocator.slot(name) == slot for name, slot in held.items())
        assert sum(map(self._allocator.pods_in, self._allocator.blocks)) == len(held)
        assert self._containers == {
            (pod.attachment.container, pod.attachment.interface): name
            for name, pod in self.pods.items()
            if pod.attachment.container
        }

    # -- names ---------------------------------------------------------------------------------

    def _slot(self, address: Address) -> Slot | None:
        block, host = self._plan.index_of(address), self._plan.host_of(address)
        return None if block is None or host is None else Slot(block, host)

    def _holder(self, owner: str, slot: Slot) -> str:
        """What a reservation is called where pods have names: no pod's has an @."""
        return f"{owner}@{self._plan.address4(*slot)}"


_ANY: Final = "@"
"""Holder of an address for the moment in which it is not known which it will be."""


def _check_owner(owner: str) -> None:
    check_text(owner, MAX_OWNER, "owner")
    if not owner:
        raise ConfigError("somebody must own it", "owner")
