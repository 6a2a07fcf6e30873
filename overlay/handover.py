"""From one process of a node to the next, while packets flow: all that the old one knew.

    old engine -- hand_over(now) --> bytes -- Engine(inherited=...).start(now) --> new engine
        |                                                                             |
        '-- spent: whatever is asked of it, StateError          packets flow, nobody notices

The bytes hold keys, and they are good once: two engines that both had them would use nonces twice.
So the old engine is spent by making them. They go through a descriptor, never to a disk. Both
processes share the machine's monotonic clock, so times go over as they are.

What is handed over: each class says so itself, in `HANDED` beside its fields
(`overlay.wire.handed`). What is not, and why:

| not handed over | because |
|---|---|
| pods, blocks, tokens, certificate | they are stored, always before a hand-over |
| items of gossip | they are stored; those that are not stored yet go over |
| the boot number | it is stored and stays: a greater one would be told to all, and mean a restart |
| routes, catalog, rings, flows | follow from the items |
| handshakes this node has begun | they are begun again at once |
| cookies that peers gave this node | the next initiation gets one |
| control messages that wait for a session | their senders repeat them |
| probes under way, news not yet offered | the next probe, and comparing stores, say the same |
| what members owe of their allowances | they begin with none; a lie more per hand-over |
| sources that failed handshakes under load | a load begins anew within a second |
| losses not yet reported, ICMP errors not yet sent | the next loss is |
| the round of a member's reminder | it is compared again when a record comes |
| private keys of authorities | they are in the folder, or an operator says the passphrase |
| other lanes and their keys | see `overlay.session.heirs` |
| which lanes of peers receive | they say so with the session that new lanes need |

A blob that cannot be used (another version, damaged, of another boot) is no defect: the new engine
starts as after a restart, with the next boot number, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2s
from hmac import compare_digest
from typing import Any, Final, NamedTuple

from overlay.complaints import Complaint, Entry
from overlay.conflict import Conflict
from overlay.effects import Effect, NetworkChanged, Report
from overlay.errors import CapacityError, NewerError, RefusedError, StateError, WireError
from overlay.faults import Fault
from overlay.forwarding.ledger import Ledger
from overlay.forwarding.path import BASE_PATH_MTU, PeerPath
from overlay.gossip.machine import Gossip
from overlay.knowledge import Knowledge
from overlay.landlord import Landlord
from overlay.lanes.books import Books
from overlay.manners import Manners
from overlay.outside import Outside
from overlay.pace import Pace
from overlay.parts import Parts
from overlay.pathmtus import PathMtus
from overlay.renewal import Renewal
from overlay.resting import restore_rests
from overlay.seeking import BlockSeeker
from overlay.session import heirs
from overlay.state import NodeState
from overlay.steward import Steward
from overlay.takeover import Takeovers
from overlay.tending import Tending
from overlay.trials import Trials
from overlay.types import NodeId
from overlay.versions import Versions
from overlay.wire.handed import (
    BYTES,
    ENDPOINT,
    INT,
    PACKED_LIMIT,
    SECONDS,
    TEXT,
    Codec,
    Handed,
    later,
    many,
    member,
    packed,
    part,
    row,
    table,
)
from overlay.wire.items import Item
from overlay.wire.packing import Fields, pack
from overlay.wire.reassembly import Reassembly

# -- specification ---------------------------------------------------------------------------------

VERSION: Final = 1
"""Grows with every change of what is handed over. Another one is not understood."""

LIMIT: Final = PACKED_LIMIT
"""Bytes. A thousand sessions with three keypairs each have 4 MB."""

QUEUED_MOST: Final = 32 << 20
"""Bytes of packets that wait for sessions. What is beyond is lost and counted."""

# -- implementation --------------------------------------------------------------------------------

_DIGEST_SIZE: Final = 16

Sections = Mapping[str, Any]
"""What was read, by the names of `_SECTIONS`."""


class Head(NamedTuple):
    """For whom it is."""

    node: bytes
    cluster: bytes
    boot_id: str
    boot: int
    lanes: int
    """Of the old process, itself included."""


_COMPLAINT: Final = row(Complaint, BYTES, member(Fault))
_COMPLAINTS: Final = Handed(
    entries=table(_COMPLAINT, row(Entry, INT, SECONDS, SECONDS, TEXT)), news=many(_COMPLAINT)
)

_SECTIONS: Final[Mapping[str, Codec]] = {
    "head": row(Head, BYTES, BYTES, TEXT, INT, INT),
    "sessions": heirs.ALL,
    "paths": table(BYTES, later(PeerPath.HANDED)),
    "answered": table(BYTES, many(ENDPOINT, tuple)),
    "takeovers": part(Takeovers),
    "mtus": later(PathMtus.HANDED),
    "trials": later(Trials.HANDED),
    "tending": part(Tending),
    "ledger": part(Ledger),
    "reassembly": part(Reassembly),
    "books": part(Books),
    "gossip": part(Gossip),
    "complaints": Codec(_COMPLAINTS.write, _COMPLAINTS.read, _COMPLAINTS.put),
    "knowledge": part(Knowledge),
    "outside": later(Outside.HANDED),
    "seeker": part(BlockSeeker),
    "renewal": part(Renewal),
    "versions": part(Versions),
    "pace": part(Pace),
    "conflict": part(Conflict),
    "landlord": part(Landlord),
    "manners": part(Manners),
    "unstored": many(row(Item, BYTES, INT, BYTES)),
    "gone": many(BYTES),
}
_PACKED: Final = {name: packed(codec) for name, codec in _SECTIONS.items()}


class Hands(NamedTuple):
    """The parts of one engine that are concerned."""

    parts: Parts
    steward: Steward
    manners: Manners
    boot_id: str

    def objects(self) -> dict[str, object]:
        """What is written of each section."""
        parts = self.parts
        unstored = {key: parts.store.get(key) for key in parts.store.unstored}
        head = Head(
            parts.local,
            self.steward.cluster.id,
            self.boot_id,
            parts.record.versions.boot,
            parts.lanes.lanes,
        )
        return {
            "head": head,
            "sessions": parts.sessions,
            "paths": parts.paths,
            "answered": parts.peering.addresses.answered,
            "takeovers": parts.peering.takeovers,
            "mtus": parts.peering.mtus,
            "trials": parts.peering.trials,
            "tending": parts.tending,
            "ledger": parts.ledger,
            "reassembly": parts.reassembly,
            "books": parts.lanes.books,
            "gossip": parts.gossip,
            "complaints": parts.complaints,
            "knowledge": parts.knowledge,
            "outside": parts.outside,
            "seeker": parts.seeker,
            "renewal": parts.renewal,
            "versions": parts.record.versions,
            "pace": self.steward.pace,
            "conflict": self.steward.conflict,
            "landlord": self.steward.landlord,
            "manners": self.manners,
            "unstored": [(i.key, i.version, i.body) for i in unstored.values() if i is not None],
            "gone": sorted(key for key, item in unstored.items() if item is None),
        }


class Spent:
    """Stands where an engine's parts were: it was handed over."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - never returns
        raise StateError(f"this engine was handed over: no {name} any more")


# -- the old process -------------------------------------------------------------------------------


def gather(hands: Hands, now: float) -> bytes:
    """All that the next process needs; nothing is sealed or opened here any more.

    Raises:
        RefusedError: `not-stored`, `identity-conflict`, `node-left`: what a start would make of the
            state is not what this engine is. Start the next process without.
        CapacityError: it is over `LIMIT`.
        StateError: a defect: it could not be read again. Nothing else; it goes on as before then.
    """
    parts = hands.parts
    hands.steward.check_storable()
    hands.steward.conflict.check()
    if parts.holdings.left or parts.holdings.ended is not None:
        raise RefusedError("node-left", "this node leaves, or is no member any more")
    _settle_packets(parts, now)
    parts.lanes.books.close_all()
    objects = hands.objects()
    body = pack([codec.write(objects[name]) for name, codec in _PACKED.items()])
    data = pack([VERSION, blake2s(body, digest_size=_DIGEST_SIZE).digest(), body])
    if len(data) > LIMIT:
        raise CapacityError(f"{len(data)} bytes are too many to hand over", "handover")
    try:
        read(data)  # what cannot be read again would be lost
    except WireError as error:
        raise StateError(f"what was gathered cannot be read: {error}") from error
    heirs.spend(parts.sessions)
    return data


def _settle_packets(parts: Parts, now: float) -> None:
    """What was read from the TUN leaves now; what waits goes over, as far as there is room."""
    parts.outbound.flush(now)
    while parts.outbound.waiting:
        parts.outbound.flush(now)
    queued = 0
    for path in parts.paths.values():
        queued += path.queued_bytes
        if queued > QUEUED_MOST:
            parts.outbound.abandon(path)


# -- the new process -------------------------------------------------------------------------------


def read(data: bytes) -> Sections:
    """What `gather` gathered; changes nothing.

    Raises:
        WireError: it is damaged, or of another version. Nothing else.
    """
    whole = Fields.unpack_untrusted(data, LIMIT, "hand-over", count=3, version=VERSION)
    body = whole.bytes(2)
    if not compare_digest(whole.bytes(1), blake2s(body, digest_size=_DIGEST_SIZE).digest()):
        raise WireError("hand-over: its digest is another one")
    sections = Fields.unpack_untrusted(body, LIMIT, "hand-over", count=len(_PACKED))
    return {
        name: codec.read(sections.bytes(at)) for at, (name, codec) in enumerate(_PACKED.items())
    }


def inheritance(
    data: bytes | None, state: NodeState, for_whom: tuple[bytes, bytes, str]
) -> tuple[Sections | None, str]:
    """What a new engine goes on from, if it can, and else why not.

    Args:
        data: what the old one handed over; None: there was none.
        state: what is stored.
        for_whom: the new engine's node, cluster and boot id of the machine.
    """
    if data is None:
        return None, ""
    try:
        sections = read(data)
    except NewerError:
        return None, "it is of another version of Muslin"
    except WireError as error:
        return None, str(error)
    head: Head = sections["head"]
    if tuple(head[:3]) != for_whom:
        return None, "it is of another node, or of another boot of the machine"
    if head.boot != state.boot:
        return None, f"it is of start {head.boot}, and start {state.boot} is stored"
    return sections, ""


def take_over(hands: Hands, sections: Sections, state: NodeState, now: float) -> list[Effect]:
    """Go on where the old engine stopped. `state` is what is stored."""
    parts = hands.parts
    parts.peering.addresses.answered.update(sections["answered"])
    Outside.HANDED.put(parts.outside, sections["outside"])
    waiting = heirs.take_over(parts.sessions, sections["sessions"])
    for node, values in sections["paths"].items():
        path = parts.paths[node] = PeerPath(node)
        PeerPath.HANDED.put(path, values)
        path.use(path.endpoint, BASE_PATH_MTU)
        path.keypair = parts.sessions.sending_keypair(node, now)
    _restore_items(parts, sections, state, now)
    parts.tell_time(now)
    objects = hands.objects()
    for name, codec in _SECTIONS.items():
        if codec.put is not None:
            codec.put(objects[name], sections[name])
    effects = parts.peering.mtus.inherit(sections["mtus"], now)
    effects += parts.peering.trials.inherit(sections["trials"], parts.paths)
    effects += _go_on(hands, state, now)
    effects += _reach(parts, waiting, now)
    if max(sections["head"].lanes, parts.lanes.lanes) > 1:
        effects += parts.lanes.tell_all(now)
    carrying = (node for node, path in parts.paths.items() if path.carried)
    parts.outbound.began.update(carrying)  # those that are not measured yet begin to be
    effects += parts.peering.mtus.on_packets(now)
    up = sum(path.keypair is not None for path in parts.paths.values())
    return [Report("handover.taken", {"count": up}), *effects]


def _restore_items(parts: Parts, sections: Sections, state: NodeState, now: float) -> None:
    """Items as they were in the old process: what is stored, and what it had not stored yet."""
    items = {item.key: item for item in state.items}
    for key in sections["gone"]:
        items.pop(key, None)
    unstored = {item.key: item for item in sections["unstored"]}
    parts.knowledge.restore(map(parts.reader.keep, (items | unstored).values()), now)
    parts.store.unstored |= {*unstored, *sections["gone"]}


def _go_on(hands: Hands, state: NodeState, now: float) -> list[Effect]:
    """As the steward's start, but nothing is announced that everybody knows."""
    parts, steward, holdings = hands.parts, hands.steward, hands.parts.holdings
    restore_rests(holdings.allocator, state.resting, parts.wall.epoch, now)
    parts.record.versions.note_made()
    own = parts.catalog.nodes.get(parts.local)
    parts.record.complaints = () if own is None else own.complaints
    tidied = steward.landlord.tidy(now)
    says_all = own is not None and parts.record.goes_on_from(own)
    if tidied.changed or (steward.told and not says_all):
        return [*steward.own_changed(now, *tidied.deeds), *tidied.reports]
    return [steward.persist(), NetworkChanged(), *tidied.reports]


def _reach(parts: Parts, waiting: list[NodeId], now: float) -> list[Effect]:
    """Begin the handshakes again that the old process had begun, or packets wait for."""
    effects: list[Effect] = []
    for node in waiting:
        if not parts.gossip.is_dead(node):
            effects += parts.peering.renew(node, now)
    for node, path in list(parts.paths.items()):
        if path.queue and path.keypair is None:
            effects += parts.peering.connect(node, now)
    return effects
