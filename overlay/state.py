"""What a node remembers across restarts: one value, and the entries it is stored as.

    boot            grows by one at each start, stored before use: record versions and handshake
                    stamps are built on it, so they only grow even if the last ones never reached
                    the disk
    pods            attached pods: addresses, owners, the machine's boot, what runtimes say of them
    reserved        addresses that are held for an owner
    resting         addresses that were given back a moment ago
    standing        whether another machine has this identity
    items           everything gossip knew: other nodes' records and the deeds of all blocks
    tokens          join tokens and who used them (only where the authority's key lives)
    names           names the authority has certified
    certificate     the newest that this node was granted since it joined
    blocks_in_use   the blocks that pods get addresses from, first the node's own
    left            whether the node has left its cluster
    told            whether a member has confirmed that it left

On disk a state is a set of entries, key -> value. A small change of a large state then is a small
write: `Persist` carries the entries that differ, all of them to be stored or none.

    schema                  [SCHEMA]; always there
    boot, left, ...         one entry for each field of `_SINGLES`; none while it is the default
    pods/NAME, items/KEY    one entry for each element of the fields of `FAMILIES`

To add a field: give `NodeState` an attribute with a default, and its name a row in `_SINGLES`
(stored whole) or `FAMILIES` (a tuple stored element by element, for what may become long). All
else follows. A field that an older Muslin must not overlook raises `SCHEMA`.

The folder, its files and their checksums are `node`'s business.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple

from overlay.attachment import NOTHING_SAID, Attachment
from overlay.attachment_entry import attachment_values, read_attachment
from overlay.errors import WireError
from overlay.types import BlockIndex
from overlay.wire.certificate import NAME_MAX
from overlay.wire.items import Item
from overlay.wire.packing import U16, U32, Fields, pack

SCHEMA: Final = 1
"""A state of a higher one is refused: it may say things that this Muslin would overlook."""

SCHEMA_KEY: Final = b"schema"

MAX_VALUE: Final = 16 << 20
"""Bytes of one entry's value. Above what the limits on tokens and names allow."""

MAX_NETNS: Final = 4096
"""Characters of the path of a namespace: Linux' PATH_MAX. Text that is stored must be printable,
too, or it could not be read back."""

MAX_OWNER: Final = 128
"""Characters of the owner of a pod or of an address."""

MAX_HOLDER: Final = MAX_OWNER + 64
"""Characters of whose an address was: a pod's name, or `OWNER@ADDRESS` of a reservation."""

MAX_BOOT_ID: Final = 64
LAST_STANDING: Final = 2

_VERSION: Final = struct.Struct(">Q")

Change = tuple[bytes, bytes | None]
"""An entry's key and its new value; None removes it."""


@dataclass(frozen=True, slots=True)
class StoredPod:
    """One attached pod."""

    name: str
    netns: str
    """Path of its network namespace."""
    block: BlockIndex
    host: int
    """Host number inside the block: names its IPv4 and its IPv6 address."""
    since: int
    """Unix seconds of its creation."""
    owner: str = "cli"
    """Who asked for it: `cli` for a person, `cni`, `docker`."""
    boot_id: str = ""
    """The machine's boot that it belongs to: a namespace does not outlive it."""
    attachment: Attachment = NOTHING_SAID
    """What its runtime said of it."""


@dataclass(frozen=True, slots=True)
class StoredRest:
    """The address of a deleted pod that is not to be given to another yet."""

    pod: str
    """Whose it was: a pod's name, or what `overlay.tenants` calls a reservation."""
    block: BlockIndex
    host: int
    until: int
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class StoredReservation:
    """An address that is held for an owner, whether one of its pods has it or not."""

    owner: str
    block: BlockIndex
    host: int
    since: int
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """Everything stored of one node."""

    boot: int = 0
    pods: tuple[StoredPod, ...] = ()
    items: tuple[Item, ...] = ()
    tokens: bytes = field(default=b"", repr=False)
    names: bytes = b""
    blocks_in_use: tuple[BlockIndex, ...] = ()
    left: bool = False
    told: bool = False
    """Whether a member has confirmed that it left: until then the blocks are not safe."""
    standing: int = 0
    """Whether another machine has this node's identity: a number of `overlay.conflict.Standing`."""
    resting: tuple[StoredRest, ...] = ()
    certificate: bytes = b""
    """Encoded; empty while it has the one it joined with."""
    reserved: tuple[StoredReservation, ...] = ()

    def entries(self) -> dict[bytes, bytes]:
        """The state as it is stored."""
        parts = singles(self)
        for name in FAMILIES:
            parts |= family(self, name)
        return {SCHEMA_KEY: pack([SCHEMA])} | {key: write_entry(key, parts[key]) for key in parts}

    @classmethod
    def from_entries(cls, entries: Mapping[bytes, bytes]) -> NodeState:
        """Read what `entries` wrote; pods come sorted by name, items by key.

        Raises:
            WireError: damaged, or of a newer schema. Nothing else.
        """
        if SCHEMA_KEY not in entries:
            raise WireError("state: it does not say which schema it has")
        schema = _unpack(entries[SCHEMA_KEY], "schema").integer(0)
        if schema > SCHEMA:
            raise WireError(f"state: version {schema} was written by a newer Muslin")
        values: dict[str, Any] = {name: [] for name in FAMILIES}
        for key in sorted(entries.keys() - {SCHEMA_KEY}):
            first, _, rest = key.partition(b"/")
            kind = first.decode("ascii", "replace")
            if kind in FAMILIES and key != first:
                values[kind].append(FAMILIES[kind].read(rest, entries[key]))
            elif kind in _SINGLES and key == first:
                values[kind] = _SINGLES[kind].read(entries[key])
            else:
                raise WireError(f"state: entry {key[:40]!r} is not known")
        for name in FAMILIES:
            values[name] = tuple(values[name])
        return cls(**values)


def pod_key(name: str) -> bytes:
    """The key of a pod among the pods."""
    return name.encode()


def slot_key(block: BlockIndex, host: int) -> bytes:
    """The key of an address that rests or is reserved, among its like."""
    return b"%d.%d" % (block, host)


def prefix_of(name: str) -> bytes:
    """What the keys of a family's entries begin with."""
    return name.encode() + b"/"


def name_of(key: bytes) -> str:
    """The family of an entry; `ALONE` if it is of none."""
    name, slash, _ = key.partition(b"/")
    return name.decode() if slash else ALONE


def singles(state: NodeState) -> dict[bytes, object]:
    """What has an entry of its own and is no element, by the entry's key, not encoded yet."""
    values = ((name, getattr(state, name)) for name in _SINGLES)
    return {name.encode(): value for name, value in values if value != _DEFAULTS[name]}


def family(state: NodeState, name: str) -> dict[bytes, object]:
    """The elements of a family, likewise."""
    prefix, key = prefix_of(name), FAMILIES[name].key
    return {prefix + key(element): element for element in getattr(state, name)}


def write_entry(key: bytes, value: object) -> bytes:
    """The value of an entry as it is stored."""
    name = name_of(key)
    return FAMILIES[name].write(value) if name else _SINGLES[key.decode()].write(value)


# -- how each field is stored ----------------------------------------------------------------------


class _Single(NamedTuple):
    """A field that is stored whole."""

    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]


class _Family(NamedTuple):
    """A field that is stored element by element: what follows the slash in the key, the value."""

    key: Callable[[Any], bytes]
    write: Callable[[Any], bytes]
    read: Callable[[bytes, bytes], Any]


def _packed(name: str, read: Callable[[Fields], Any]) -> _Single:
    """Stored as a packed array of one value."""
    return _Single(lambda value: pack([value]), lambda stored: read(_unpack(stored, name)))


def _unpack(stored: bytes, name: str) -> Fields:
    return Fields.unpack_untrusted(stored, MAX_VALUE, f"state: {name}", count=1)


def _raw(stored: bytes) -> bytes:
    return stored


def _read_blocks(stored: Fields) -> tuple[BlockIndex, ...]:
    blocks = stored.fields(0, "blocks")
    return tuple(BlockIndex(blocks.integer(at, 0, U16)) for at in range(len(blocks)))


def _write_pod(pod: StoredPod) -> bytes:
    attachment = attachment_values(pod.attachment)
    where = [pod.name, pod.netns, pod.block, pod.host, pod.since, pod.owner, pod.boot_id]
    return pack([*where, attachment])


def _read_pod(key: bytes, stored: bytes) -> StoredPod:
    values = _unpack(stored, "pod")
    pod = StoredPod(
        name=values.text(0, NAME_MAX),
        netns=values.text(1, MAX_NETNS),
        block=BlockIndex(values.integer(2, 0, U16)),
        host=values.integer(3, 0, U32),
        since=values.integer(4),
        owner=values.text(5, MAX_OWNER),
        boot_id=values.text(6, MAX_BOOT_ID),
        attachment=read_attachment(values.fields(7, "attachment", count=8)),
    )
    if pod.name.encode() != key:
        raise WireError(f"state: the entry of pod {key[:NAME_MAX]!r} is another's")
    return pod


def _key_of_slot(held: StoredRest | StoredReservation) -> bytes:
    return slot_key(held.block, held.host)


def _write_rest(rest: StoredRest) -> bytes:
    return pack([rest.pod, rest.block, rest.host, rest.until])


def _read_rest(key: bytes, stored: bytes) -> StoredRest:
    values = _unpack(stored, "resting address")
    rest = StoredRest(
        pod=values.text(0, MAX_HOLDER),
        block=BlockIndex(values.integer(1, 0, U16)),
        host=values.integer(2, 0, U32),
        until=values.integer(3),
    )
    if _key_of_slot(rest) != key:
        raise WireError(f"state: the entry of resting address {key[:NAME_MAX]!r} is another's")
    return rest


def _write_reservation(held: StoredReservation) -> bytes:
    return pack([held.owner, held.block, held.host, held.since])


def _read_reservation(key: bytes, stored: bytes) -> StoredReservation:
    values = _unpack(stored, "reserved address")
    held = StoredReservation(
        owner=values.text(0, MAX_OWNER),
        block=BlockIndex(values.integer(1, 0, U16)),
        host=values.integer(2, 0, U32),
        since=values.integer(3),
    )
    if _key_of_slot(held) != key:
        raise WireError(f"state: the entry of reserved address {key[:NAME_MAX]!r} is another's")
    return held


def _write_item(item: Item) -> bytes:
    return _VERSION.pack(item.version) + item.body


def _read_item(key: bytes, stored: bytes) -> Item:
    if len(stored) < _VERSION.size:
        raise WireError("state: an item has no version")
    return Item(key, _VERSION.unpack_from(stored)[0], stored[_VERSION.size :])


_SINGLES: Final[dict[str, _Single]] = {
    "boot": _packed("boot", lambda stored: stored.integer(0, 0, U32)),
    "tokens": _Single(_raw, _raw),
    "names": _Single(_raw, _raw),
    "certificate": _Single(_raw, _raw),
    "blocks_in_use": _packed("blocks", _read_blocks),
    "left": _packed("left", lambda stored: stored.boolean(0)),
    "told": _packed("told", lambda stored: stored.boolean(0)),
    "standing": _packed("standing", lambda stored: stored.integer(0, 0, LAST_STANDING)),
}

FAMILIES: Final[dict[str, _Family]] = {
    "pods": _Family(lambda pod: pod_key(pod.name), _write_pod, _read_pod),
    "resting": _Family(_key_of_slot, _write_rest, _read_rest),
    "reserved": _Family(_key_of_slot, _write_reservation, _read_reservation),
    "items": _Family(lambda item: item.key, _write_item, _read_item),
}

ITEMS: Final = "items"
ALONE: Final = ""
"""Stands for a family where an entry is of none."""

_DEFAULTS: Final[dict[str, object]] = {field.name: field.default for field in fields(NodeState)}
