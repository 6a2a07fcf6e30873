"""Control messages: what nodes say to each other inside a session.

Each is a msgpack array, its number first, in a block of kind CONTROL:

    liveness    1 Probe            2 ProbeReply       13 Goodbye
    path MTU    3 PathProbe        4 PathProbeReply  17 SegmentLoss
    offloads   14 Trial           15 TrialReply      16 ReadSingly
    gossip      5 Summary          6 Digest            7 Want           8 Delta
    address     9 BlockRequest    10 Refusal           (a grant is a deed: it arrives as an item)
    joining    11 JoinRequest     12 JoinGrant        10 Refusal
    measuring  21 BenchRequest    22 BenchReady       23 BenchDone         10 Refusal

The session authenticates the sender, so a message carries no sender. It may be lost, repeated and
reordered: every exchange is written so that repeating the question is harmless.

Extension: numbers are never reused; fields are only ever added at the end, and a receiver ignores
those it does not know. A message with fewer fields than its first version had is refused.

References:
    RFC 8899, section 4.1: a path probe is padded to the size it tests and acknowledged by number.
    Demers et al. 1987: digest, want and delta are push-pull anti-entropy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Final, NamedTuple, get_args

from overlay.config import Limits
from overlay.errors import CapacityError, WireError
from overlay.keys import KEY_SIZE, SIGNATURE_SIZE
from overlay.wire.certificate import CERTIFICATE_MAX, NAME_MAX
from overlay.wire.cluster import CLUSTER_MAX
from overlay.wire.items import FINGERPRINT_SIZE, Item, item_untrusted, key_untrusted
from overlay.wire.packing import U16, U32, U64, Fields, pack

# -- specification ---------------------------------------------------------------------------------

MESSAGE_LIMIT: Final = Limits().control_message
"""Bytes of an encoded message: it must fit one block of one burst."""

ITEMS_LIMIT: Final = 4096
"""Items, keys or digest entries in one message. The smallest entry has 15 bytes, so this is what
`MESSAGE_LIMIT` has room for; a longer list is several messages."""

CODE_LIMIT: Final = 64
"""Characters of a refusal's stable code."""

TEXT_LIMIT: Final = 500
"""Characters of a refusal's explanation: a sentence for a person."""

ROOT_SIZE: Final = 8

BENCH_TOKEN_SIZE: Final = 32
"""Of a measurement: 16 bytes for connections through the overlay, 16 for those beside it, which
travel in the clear."""

BENCH_LONGEST: Final = 600
"""Seconds for which a member may keep another one busy with one measurement."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Are you there? Answered at once with a `ProbeReply` of the same sequence."""

    sequence: int


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """I am."""

    sequence: int


@dataclass(frozen=True, slots=True)
class PathProbe:
    """Sent so that its one datagram makes an underlay packet of `size` bytes, DF set."""

    size: int
    padding: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PathProbeReply:
    """A packet of `size` bytes got through."""

    size: int


@dataclass(frozen=True, slots=True)
class Summary:
    """All items of the sender in one hash. Equal roots: nothing to do."""

    root: bytes
    count: int


class DigestEntry(NamedTuple):
    """One item without its body."""

    key: bytes
    version: int
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Digest:
    """Items the sender has.

    Complete: all of them; answered with a `Delta` of what the sender lacks and a `Want` of what
    the receiver lacks. Not complete: an offer of some; answered with a `Want` of those the
    receiver lacks. That one may be empty, and then it is the acknowledgement.
    """

    entries: tuple[DigestEntry, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Want:
    """Send me the items with these keys; none: I have all you offered."""

    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """Items for the receiver's store."""

    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class BlockRequest:
    """Give me an address block. Repeated with the same `request` until a deed or refusal comes."""

    request: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """No, to a `BlockRequest`, `JoinRequest` or `BenchRequest`."""

    request: int
    code: str
    """Stable, lower case, dashed (`token-used`)."""
    text: str
    """One clause for a person."""


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """Make me a member. Only ever the first message in a session opened with a token."""

    request: int
    name: str
    static: bytes
    """X25519 key the certificate shall bind, 32 bytes."""
    signature: bytes
    """By the joiner's identity over token id, static and name, in context `join`."""


@dataclass(frozen=True, slots=True)
class JoinGrant:
    """All that a new member needs: who it is, what the cluster is, and a first look around."""

    request: int
    certificate: bytes
    cluster: bytes
    psk: bytes = field(repr=False)
    """The cluster's pre-shared key, 32 bytes. Kept out of `repr`, which ends up in logs."""
    items: tuple[Item, ...]
    """Records of members to talk to next, the granting one's first."""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The sender is stopping, and keeps its name and blocks: drop the session, keep the routes."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Did this arrive? Large ones make a burst of some forty segments, small ones of one."""

    number: int
    takes: int
    """Offloads of the sender's TUN, as bits: 1 checksum, 2 tso, 4 uso. Others are ignored."""
    block: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TrialReply:
    """The trial of that number arrived whole, hence unchanged."""

    number: int
    takes: int
    coalesced: bool
    """All its segments came in one read."""


@dataclass(frozen=True, slots=True)
class ReadSingly:
    """Large bursts of the sender's are not answered, however they are sent: do without UDP_GRO."""


@dataclass(frozen=True, slots=True)
class SegmentLoss:
    """So many bursts of the receiver's stayed incomplete since the last report."""

    bursts: int


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """Let me measure the way to you. Repeated with the same `request` until answered."""

    request: int
    address: bytes
    """In the pod network, the receiver's or that of one of its pods; 4 or 16 bytes."""
    underlay: bytes
    """Of the receiver in the underlay, to be measured for comparison; 0, 4 or 16 bytes."""
    seconds: int
    """How long it takes at most, 1 to `BENCH_LONGEST`."""


@dataclass(frozen=True, slots=True)
class BenchReady:
    """Yes, to a `BenchRequest`: connect to these ports, TCP and UDP, from the addresses I know."""

    request: int
    token: bytes = field(repr=False)
    port: int
    """At the pod-network address."""
    underlay_port: int
    """At the underlay address; 0: that address is not the receiver's own, or none was asked for."""


@dataclass(frozen=True, slots=True)
class BenchDone:
    """The measurement is over: free what was kept for it. Said by either side."""

    request: int


Message = (
    Probe
    | ProbeReply
    | PathProbe
    | PathProbeReply
    | Summary
    | Digest
    | Want
    | Delta
    | BlockRequest
    | Refusal
    | JoinRequest
    | JoinGrant
    | Goodbye
    | Trial
    | TrialReply
    | ReadSingly
    | SegmentLoss
    | BenchRequest
    | BenchReady
    | BenchDone
)

# -- implementation --------------------------------------------------------------------------------

_Reader = Callable[[Fields, int], object]
"""Reads one field of a message, or raises WireError."""


def _integer(high: int) -> _Reader:
    return lambda message, index: message.integer(index, 0, high)


def _bytes(*, size: int | None = None, limit: int | None = None) -> _Reader:
    return lambda message, index: message.bytes(index, size, limit)


def _packed_address(*sizes: int) -> _Reader:
    def read(message: Fields, index: int) -> object:
        address = message.bytes(index, limit=max(sizes))
        if len(address) not in sizes:
            raise WireError(f"control message: an address of {len(address)} bytes")
        return address

    return read


def _text(limit: int) -> _Reader:
    return lambda message, index: message.text(index, limit)


def _each(read_untrusted: Callable[[object], object]) -> _Reader:
    def read(message: Fields, index: int) -> object:
        return tuple([read_untrusted(value) for value in message.sequence(index, ITEMS_LIMIT)])

    return read


def _entry_untrusted(value: object) -> DigestEntry:
    entry = Fields(value, "digest entry", 3)
    return DigestEntry(key_untrusted(entry, 0), entry.integer(1), entry.bytes(2, FINGERPRINT_SIZE))


def _keys(message: Fields, index: int) -> object:
    keys = Fields(message.sequence(index, ITEMS_LIMIT), "keys")
    return tuple([key_untrusted(keys, place) for place in range(len(keys))])


_ITEMS: Final = _each(item_untrusted)

_LAYOUTS: Final[Mapping[int, tuple[Callable[..., Message], tuple[_Reader, ...]]]] = {
    1: (Probe, (_integer(U64),)),
    2: (ProbeReply, (_integer(U64),)),
    3: (PathProbe, (_integer(U16), _bytes())),
    4: (PathProbeReply, (_integer(U16),)),
    5: (Summary, (_bytes(size=ROOT_SIZE), _integer(U32))),
    6: (Digest, (_each(_entry_untrusted), Fields.boolean)),
    7: (Want, (_keys,)),
    8: (Delta, (_ITEMS,)),
    9: (BlockRequest, (_integer(U64),)),
    10: (Refusal, (_integer(U64), _text(CODE_LIMIT), _text(TEXT_LIMIT))),
    11: (
        JoinRequest,
        (_integer(U64), _text(NAME_MAX), _bytes(size=KEY_SIZE), _bytes(size=SIGNATURE_SIZE)),
    ),
    12: (
        JoinGrant,
        (
            _integer(U64),
            _bytes(limit=CERTIFICATE_MAX),
            _bytes(limit=CLUSTER_MAX),
            _bytes(size=KEY_SIZE),
            _ITEMS,
        ),
    ),
    13: (Goodbye, ()),
    14: (Trial, (_integer(U32), _integer(U16), _bytes())),
    15: (TrialReply, (_integer(U32), _integer(U16), Fields.boolean)),
    16: (ReadSingly, ()),
    17: (SegmentLoss, (_integer(U32),)),
    21: (
        BenchRequest,
        (
            _integer(U64),
            _packed_address(4, 16),
            _packed_address(0, 4, 16),
            lambda message, index: message.integer(index, 1, BENCH_LONGEST),
        ),
    ),
    22: (
        BenchReady,
        (_integer(U64), _bytes(size=BENCH_TOKEN_SIZE), _integer(U16), _integer(U16)),
    ),
    23: (BenchDone, (_integer(U64),)),
}
"""Number -> what it makes, and how each field is read, in order."""

_NUMBERS: Final = {layout[0]: number for number, layout in _LAYOUTS.items()}
_NAMES: Final = {kind: tuple(one.name for one in fields(kind)) for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    """The msgpack form of `message`.

    Raises:
        CapacityError: it is over `MESSAGE_LIMIT` (`control_message`). Nothing else.

    >>> encode(Probe(7)).hex()
    '920107'
    """
    kind = type(message)
    packed = pack([_NUMBERS[kind], *[getattr(message, name) for name in _NAMES[kind]]])
    if len(packed) > MESSAGE_LIMIT:
        raise CapacityError(f"a {kind.__name__} of {len(packed)} bytes", "control_message")
    return packed


def decode_untrusted(data: bytes | memoryview) -> Message:
    """Read one control message.

    Raises:
        WireError: not a message of a known number with fields of the right types and sizes, or
            over `MESSAGE_LIMIT`. Nothing else.
    """
    message = Fields.unpack_untrusted(data, MESSAGE_LIMIT, "control message", count=1)
    number = message.integer(0)
    layout = _LAYOUTS.get(number)
    if layout is None:
        raise WireError(f"control message: number {number} is not known")
    make, readers = layout
    return make(*[read(message, index) for index, read in enumerate(readers, 1)])
