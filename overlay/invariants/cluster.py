"""What only somebody can see who sees all nodes. Each check enters an `Act` in the register."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from typing import Final

from overlay.catalog.keys import block_of_key, node_of_key
from overlay.catalog.records import decode_record_untrusted
from overlay.catalog.removals import decode_removal_untrusted, removal_content, removed_of_key
from overlay.invariants.kinds import Invariant, Scope, Subject
from overlay.invariants.register import Act, Claims, Stored
from overlay.keys import SIGNATURE_SIZE
from overlay.types import BlockIndex, NodeId
from overlay.wire.authority import AUTHORITIES_KEY, links_untrusted
from overlay.wire.items import Item

# -- who holds what --------------------------------------------------------------------------------


def _one_user(act: Act) -> Iterator[str]:
    if act.used is not None:
        yield from _blocks_twice(act, act.register.users, act.used, "used")


def _one_owner(act: Act) -> Iterator[str]:
    if act.owned is not None:
        yield from _blocks_twice(act, act.register.owners, act.owned, "owned")


def _blocks_twice(
    act: Act, claims: Claims[BlockIndex], blocks: Set[BlockIndex], what: str
) -> Iterator[str]:
    here = act.holder()
    for block, others in claims.hold(act.machine, dict.fromkeys(blocks, here)):
        for other in others:
            if other.node != here.node and not act.register.excused(block, here, other):
                yield f"{_prefix(act, block)} is {what} by {other} and by {here}"


def _one_holder(act: Act) -> Iterator[str]:
    if act.slots is None:
        return
    held = {slot: act.holder(pod) for slot, pod in act.slots.items()}
    for slot, others in act.register.holders.hold(act.machine, held):
        for other in others:
            if not act.register.excused(slot.block, held[slot], other):
                address = act.engine.parts.plan.address4(slot.block, slot.host)
                yield f"{address} belongs to {other} and to {held[slot]}"


# -- what is accepted ------------------------------------------------------------------------------


def _owner_signed(act: Act) -> Iterator[str]:
    for _, item in act.items:
        if item not in act.register.vouched:
            found = list(_unsigned(act, item))
            if not found:
                act.register.vouched.add(item)
            yield from found


def _unsigned(act: Act, item: Item) -> Iterator[str]:
    """What in an item was never signed by whom it names."""
    signed, cluster = act.register.signed, act.engine.cluster
    if node_of_key(item.key) is not None:
        parts = act.engine.parts
        record = decode_record_untrusted(item, cluster, parts.plan, parts.limits)
        if not signed(record.node, item.body[SIGNATURE_SIZE:]):
            yield f"{act.machine} accepted a record of {record.name}, never signed by {record.name}"
        certificate = record.certificate
        if not _authority_signed(act, certificate.issuer, certificate.signed_bytes()):
            yield f"{act.machine} accepted {record.name}, never certified by an authority"
    yield from _unsigned_by_authority(act, item)
    for deed in act.deeds(item):
        if not signed(deed.giver, deed.signed_bytes(cluster.id)):
            place = f"deed {deed.sequence} of {_prefix(act, deed.block)}"
            yield f"{act.machine} accepted {place}, never signed by {_name(act, deed.giver)}"


def _unsigned_by_authority(act: Act, item: Item) -> Iterator[str]:
    cluster = act.engine.cluster
    if removed_of_key(item.key) is not None:
        signer = decode_removal_untrusted(item, cluster).signer
        if not _authority_signed(act, signer, removal_content(item)):
            yield f"{act.machine} accepted a removal, never signed by an authority"
    if item.key == AUTHORITIES_KEY:
        for link in links_untrusted(item):
            if not _authority_signed(act, link.signer, link.signed_bytes()):
                yield f"{act.machine} accepted link {link.number}, never signed by an authority"
    chain = act.chain(item)
    base = None if chain is None else chain.base
    if base is not None and not _authority_signed(act, base.signer, base.signed_bytes(cluster.id)):
        place = f"base {base.sequence} of {_prefix(act, base.block)}"
        yield f"{act.machine} accepted {place}, never signed by an authority"


def _authority_signed(act: Act, signer: bytes, message: bytes) -> bool:
    """Whether `signer` is, or was, an authority of the cluster, and did sign this."""
    known = act.engine.parts.catalog.judge.trust.standing(signer) is not None
    return known and act.register.signed(signer, message)


def _never_backwards(act: Act) -> Iterator[str]:
    for old, new in act.items:
        if old is None or (new.version, new.body) > (old.version, old.body):
            continue
        block = block_of_key(new.key)
        what = f"the record of {_owner(act, new)}" if block is None else _prefix(act, block)
        versions = f"from {_text(old.version)} back to {_text(new.version)}"
        yield f"{act.machine} went {versions} with {what}"


def _version_once(act: Act) -> Iterator[str]:
    contents, suspects = act.register.contents, act.register.suspects
    for _, item in act.items:
        node = node_of_key(item.key)
        if node is None or node == act.node or node in suspects:
            continue
        if contents.setdefault((item.key, item.version), item.body) != item.body:
            yield f"there are two records of {_owner(act, item)} with version {_text(item.version)}"


def _deed_once(act: Act) -> Iterator[str]:
    register = act.register
    for _, item in act.items:
        for deed in act.deeds(item):
            # What the giver itself knows may not be stored yet, and may still be made anew.
            place = (deed.giver, deed.block, deed.sequence)
            if deed.giver == act.node:
                continue
            if deed.giver in register.suspects:
                # There may be another one, seen by nobody who kept it.
                register.forked.add(deed.block)
                continue
            if register.deeds.setdefault(place, deed.signature) == deed.signature:
                continue
            twice = f"{_prefix(act, deed.block)} away twice, by two deeds {deed.sequence}"
            yield f"{_name(act, deed.giver)} gave {twice}"


def _stored_first(act: Act) -> Iterator[str]:
    for _, item in act.items:
        node = node_of_key(item.key)
        if node is not None and (stored := _disk_of(act, node)) and stored.version < item.version:
            known = f"version {_text(item.version)} of {_owner(act, item)}"
            yield f"{act.machine} knows {known}, whose disk has {_text(stored.version)}"
        for deed in act.deeds(item):
            stored = _disk_of(act, deed.giver)
            if stored is None or stored.bases.get(deed.block, 0) >= deed.sequence:
                continue  # the authority's word has taken its place meanwhile
            if deed.signature not in stored.deeds:
                what = f"deed {deed.sequence} of {_prefix(act, deed.block)}"
                yield f"{act.machine} has {what}, the disk of {_name(act, deed.giver)} has not"


def _disk_of(act: Act, node: NodeId) -> Stored | None:
    """What the disk of another node has that is under judgement; None otherwise."""
    if node == act.node or node in act.register.suspects:
        return None
    return act.register.stored(node)


# -- what is said of others -----------------------------------------------------------------------


def _honest_not_named(act: Act) -> Iterator[str]:
    for (node, fault), entry in act.engine.parts.complaints.entries.items():
        if node not in act.register.suspects:
            yield f"{act.machine} complains of {_name(act, node)}: {fault} ({entry.evidence})"


# -- names -----------------------------------------------------------------------------------------


def _prefix(act: Act, block: BlockIndex) -> str:
    return str(act.engine.parts.plan.prefix4(block))


def _name(act: Act, node: NodeId) -> str:
    return act.engine.parts.name_of(node)


def _owner(act: Act, item: Item) -> str:
    return _name(act, node_of_key(item.key) or NodeId(item.key[1:]))


def _text(version: int) -> str:
    return f"{version >> 32}.{version & 0xFFFFFFFF}"


def _of(
    name: str, claim: str, subject: Subject, check: Callable[[Act], Iterator[str]]
) -> Invariant[Act]:
    return Invariant(name, claim, Scope.CLUSTER, subject, check)


CLUSTER_INVARIANTS: Final[tuple[Invariant[Act], ...]] = (
    _of(
        "owner-signed",
        "Nothing is accepted that its owner did not sign.",
        Subject.ITEMS,
        _owner_signed,
    ),
    _of(
        "never-backwards",
        "No node goes back to an older record, or to a chain of deeds that lost.",
        Subject.ITEMS,
        _never_backwards,
    ),
    _of(
        "version-once",
        "A node announces one record under each version.",
        Subject.ITEMS,
        _version_once,
    ),
    _of(
        "deed-once",
        "An owner gives a block away once.",
        Subject.ITEMS,
        _deed_once,
    ),
    _of(
        "stored-first",
        "What a node tells others of itself is on its disk.",
        Subject.ITEMS,
        _stored_first,
    ),
    _of(
        "one-owner",
        "No address block is owned by two nodes, in their own eyes.",
        Subject.HOLDINGS,
        _one_owner,
    ),
    _of(
        "one-user",
        "No address block is used by two nodes.",
        Subject.HOLDINGS,
        _one_user,
    ),
    _of(
        "one-holder",
        "No address belongs to two pods.",
        Subject.HOLDINGS,
        _one_holder,
    ),
    _of(
        "honest-not-named",
        "Nobody complains of a node that is honest.",
        Subject.BOOKS,
        _honest_not_named,
    ),
)
"""Items come first: they say which blocks a suspect has forked."""
