"""What a node can see of itself. Every check here is cheap enough for a running daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from overlay.catalog.outside import consent_for, forbidden
from overlay.errors import AuthError, WireError
from overlay.invariants.kinds import Invariant, Scope, Subject
from overlay.ipam.allocator import Slot
from overlay.routing.lpm import Place
from overlay.routing.table import Entry

if TYPE_CHECKING:  # a watch goes through this list; the types alone are needed back
    from overlay.catalog.records import NodeRecord
    from overlay.invariants.watch import Watch
    from overlay.parts import Parts

_KEYPAIRS_PER_PEER: Final = 4
"""Next, current, previous, and one of a handshake under way."""

_SIGNATURES: Final = 2
"""Items whose signatures one look verifies: each costs a tenth of a millisecond or more."""


def _boot_grows(watch: Watch) -> Iterator[str]:
    if watch.first_boot < watch.previous_boot + (not watch.engine.inherited):
        yield f"start {watch.first_boot} follows start {watch.previous_boot}"
    if watch.engine.parts.record.versions.boot < watch.first_boot:
        yield f"start {watch.first_boot} calls itself {watch.engine.parts.record.versions.boot}"


def _version_grows(watch: Watch) -> Iterator[str]:
    version = watch.version
    if version is not None and version < watch.memory.version:
        yield f"its record has version {_text(version)}, it had {_text(watch.memory.version)}"


def _text(version: int) -> str:
    return f"{version >> 32}.{version & 0xFFFFFFFF}"


def _block_titled(watch: Watch) -> Iterator[str]:
    """A block that was lost to another keeps the pods it has, and gets no others.

    A node that cannot store, or waits for its operator, gives nothing up.
    """
    parts, memory = watch.engine.parts, watch.memory
    if watch.engine.not_stored or watch.engine.conflict.frozen:
        return
    slots = watch.slots()
    for block in parts.holdings.blocks_in_use:
        owner = parts.catalog.titles.owner(block)
        if owner == watch.engine.identity.node or parts.holdings.ended:
            continue
        here = {slot: pod for slot, pod in slots.items() if slot.block == block}
        prefix, whose = parts.plan.prefix4(block), parts.name_of(owner)
        if not here:
            yield f"{prefix} is in use here and owned by {whose}"
        for slot, pod in here.items():
            if memory.owned.get(block) is False and memory.slots.get(slot) != pod:
                yield f"pod {pod} was given an address of {prefix}, which {whose} owns"


def _pod_in_block(watch: Watch) -> Iterator[str]:
    holdings, plan = watch.engine.parts.holdings, watch.engine.parts.plan
    for pod in holdings.pods.values():
        if pod.block not in holdings.blocks_in_use:
            yield f"pod {pod.name} has {plan.address4(pod.block, pod.host)}, in no block in use"
        elif not plan.is_pod_host(pod.host):
            yield f"pod {pod.name} has {plan.address4(pod.block, pod.host)}, which is reserved"


def _address_once(watch: Watch) -> Iterator[str]:
    holdings, plan = watch.engine.parts.holdings, watch.engine.parts.plan
    slots = watch.slots()
    for pod in holdings.pods.values():
        other = slots[Slot(pod.block, pod.host)]
        if other != pod.name:
            yield f"pods {pod.name} and {other} have {plan.address4(pod.block, pod.host)}"


def _quarantine_kept(watch: Watch) -> Iterator[str]:
    memory, plan = watch.memory, watch.engine.parts.plan
    # What was freed after the last look, at the earliest, rests until then at least.
    unseen = memory.looked_at + watch.engine.parts.holdings.quarantine
    for slot, pod in watch.slots().items():
        before, until = memory.resting.get(slot, (pod, 0.0))
        if slot in memory.slots and memory.slots[slot] != pod:
            before, until = memory.slots[slot], unseen
        if before != pod and until > watch.now:
            address = plan.address4(slot.block, slot.host)
            yield f"{address} went from pod {before} to pod {pod} without a rest"


def _frozen_idle(watch: Watch) -> Iterator[str]:
    memory, parts = watch.memory, watch.engine.parts
    if not (memory.frozen and watch.engine.conflict.frozen):
        return
    for slot, pod in watch.slots().items():
        if memory.slots.get(slot) != pod:
            address = parts.plan.address4(slot.block, slot.host)
            yield f"pod {pod} was given {address} while the identity is in conflict"
    # Deeds are not looked at: the other machine with this identity signs with the same key.
    for block in parts.holdings.blocks_in_use:
        if block not in memory.owned:
            prefix = parts.plan.prefix4(block)
            yield f"{prefix} was taken into use while the identity is in conflict"


def _routes_derived(watch: Watch) -> Iterator[str]:
    parts = watch.engine.parts
    routes = parts.routes
    for node in watch.sample(parts.catalog.nodes):
        for block in parts.catalog.nodes[node].blocks_in_use:
            if node in parts.catalog.removed:
                continue
            prefix = parts.plan.prefix4(block)
            if routes.home(prefix) != node and parts.catalog.titles.owner(block) == node:
                yield f"{prefix} is {parts.name_of(node)}'s, and not routed to it"
    for version, place in watch.sample(routes.places()):
        if why := _misplaced(parts, version, place):
            entry = routes.at(version, place)
            yield f"{entry.prefix} is routed to {parts.name_of(entry.node)}, which {why}"


def _misplaced(parts: Parts, version: int, place: Place) -> str:
    """Why one of the routes must not be there; empty if it may."""
    first, node = parts.routes.first_at(version, place)
    block = parts.plan.index_at(version, first)
    record = parts.catalog.nodes.get(node)
    if node in parts.catalog.removed:
        return "was removed"
    if block is None:
        return _unfounded(parts, parts.routes.at(version, place), record)
    if record is None or block not in record.blocks_in_use:
        return "does not use it"
    return "" if parts.catalog.titles.owner(block) == node else "does not own it"


def _unfounded(parts: Parts, route: Entry, record: NodeRecord | None) -> str:
    """The same for a route to the outside."""
    if record is None or route.prefix not in record.routes:
        return "does not advertise it"
    if consent_for(record.certificate.routes, route.prefix) is None:
        return "has no consent for it"
    if why := forbidden(route.prefix, parts.plan.cluster):
        return f"must not have it: {why}"
    return "" if parts.outside.in_force.get(route.prefix) == route.node else "lost it"


def _items_verify(watch: Watch) -> Iterator[str]:
    for item in watch.sample(watch.engine.parts.store.unsorted(), _SIGNATURES):
        try:
            watch.engine.parts.reader.verify(item)
        except (WireError, AuthError) as error:
            yield f"item {item.key.hex()[:18]}, version {_text(item.version)}: {error}"


def _books_balance(watch: Watch) -> Iterator[str]:
    ledger = watch.engine.ledger
    read = ledger.tun_in + ledger.datagrams_in + ledger.opened_in
    gone = ledger.sent_out + ledger.consumed_out + ledger.tun_out + sum(ledger.drops.values())
    queued = ledger.queued_packets + ledger.queued_segments
    if read != gone + queued:
        yield f"{read} things were read, {gone} went somewhere, {queued} wait: {ledger.view()}"
    if min(ledger.queued_packets, ledger.queued_segments) < 0:
        yield f"{ledger.queued_packets} packets and {ledger.queued_segments} segments wait"


def _tables_bounded(watch: Watch) -> Iterator[str]:
    parts, limits = watch.engine.parts, watch.engine.parts.limits
    peers = len(parts.peering.paths)
    sizes = {
        "items": (len(parts.store), limits.items),
        "keypairs": (
            len(parts.sessions.keypairs),
            _KEYPAIRS_PER_PEER * peers + limits.half_open,
        ),
        "packets in queues": (
            parts.ledger.queued_packets,
            (peers + 1) * limits.queued_packets,
        ),
    }
    for what, (size, limit) in sizes.items():
        if size > limit:
            yield f"{size} {what}, where {limit} are allowed"


def _parts_agree(watch: Watch) -> Iterator[str]:
    parts = watch.engine.parts
    for check in (
        parts.holdings.check_invariants,
        parts.catalog.check_invariants,
        parts.routes.check_invariants,
        parts.sessions.check_invariants,
        parts.outbound.check_invariants,
        parts.inbound.check_invariants,
        parts.lanes.check_invariants,
        lambda: parts.gossip.check_invariants(watch.now),
    ):
        check()
    yield from ()


def _of(
    name: str, claim: str, subject: Subject, check: Callable[[Watch], Iterator[str]]
) -> Invariant[Watch]:
    return Invariant(name, claim, Scope.NODE, subject, check)


NODE_INVARIANTS: Final[tuple[Invariant[Watch], ...]] = (
    _of(
        "boot-grows",
        "Every start of a node has a higher number than all before.",
        Subject.HOLDINGS,
        _boot_grows,
    ),
    _of(
        "version-grows",
        "The version of a node's own record never goes back.",
        Subject.HOLDINGS,
        _version_grows,
    ),
    _of(
        "block-titled",
        "A node hands out addresses of blocks that are titled to it, and of no others.",
        Subject.HOLDINGS,
        _block_titled,
    ),
    _of(
        "pod-in-block",
        "Every pod has an address for pods, in a block that its node uses.",
        Subject.HOLDINGS,
        _pod_in_block,
    ),
    _of(
        "address-once",
        "No two pods of a node have one address.",
        Subject.HOLDINGS,
        _address_once,
    ),
    _of(
        "quarantine-kept",
        "The address of a deleted pod rests before another pod gets it.",
        Subject.HOLDINGS,
        _quarantine_kept,
    ),
    _of(
        "frozen-idle",
        "A node whose identity is in conflict hands out no address and takes no block into use.",
        Subject.HOLDINGS,
        _frozen_idle,
    ),
    _of(
        "routes-derived",
        "A prefix is routed to the node that owns and uses its block, or may advertise it, and to "
        "no other.",
        Subject.ROUTES,
        _routes_derived,
    ),
    _of(
        "items-verify",
        "Every record and every chain of deeds that is held is signed by its owners.",
        Subject.SIGNATURES,
        _items_verify,
    ),
    _of(
        "books-balance",
        "Everything that was read was handed on, waits, or was counted as lost.",
        Subject.BOOKS,
        _books_balance,
    ),
    _of(
        "tables-bounded",
        "No table holds more than its limit.",
        Subject.TABLES,
        _tables_bounded,
    ),
    _of(
        "parts-agree",
        "What one part of a node keeps twice, or two parts keep of each other, is the same.",
        Subject.DEPTHS,
        _parts_agree,
    ),
)
"""In the order in which a reader would ask."""
