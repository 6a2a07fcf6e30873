"""Control messages: what nodes say to each other inside a session.

Each is a msgpack array, its number first, in a block of kind CONTROL:

    liveness    1 Probe            2 ProbeReply       13 Goodbye         26 Claims
               27 IndirectProbe   28 IndirectReply
    path MTU    3 PathProbe        4 PathProbeReply  17 SegmentLoss
    offloads   14 Trial           15 TrialReply      16 ReadSingly
    gossip      5 Summary          6 Buckets           7 Ids            8 Delta
               24 Have            25 Want
    address     9 BlockRequest    10 Refusal           (a grant is a deed: it arrives as an item)
    joining    11 JoinRequest     12 JoinGrant        10 Refusal
    renewing   29 RenewRequest    30 RenewGrant       10 Refusal
    measuring  21 BenchRequest    22 BenchReady       23 BenchDone         10 Refusal
    comparing  31 FactsRequest    32 Facts
    lanes      18 Lanes           19 LaneProbe        20 LaneProbeReply

The session authenticates the sender, so a message carries no sender. It may be lost, repeated and
reordered: every exchange is written so that repeating the question is harmless.

Extension: numbers are never reused; fields are only ever added at the end, and a receiver ignores
those it does not know. A message with fewer fields than its first version had is refused.

References:
    RFC 8899, section 4.1: a path probe is padded to the size it tests and acknowledged by number.
    Demers et al. 1987: summary, buckets, ids and delta are push-pull anti-entropy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Final, get_args

from overlay.errors import CapacityError, NewerError, WireError
from overlay.keys import KEY_SIZE, SIGNATURE_SIZE
from overlay.wire.certificate import CERTIFICATE_MAX, NAME_MAX
from overlay.wire.claims import claim_untrusted
from overlay.wire.cluster import CLUSTER_MAX
from overlay.wire.items import ID_SIZE, item_untrusted
from overlay.wire.messages import (
    BENCH_LONGEST,
    BENCH_TOKEN_SIZE,
    BUCKETS,
    CLAIMS_LIMIT,
    CODE_LIMIT,
    FACTS_LIMIT,
    IDS_LIMIT,
    ITEMS_LIMIT,
    LANES_LIMIT,
    MESSAGE_LIMIT,
    ROOT_SIZE,
    TEXT_LIMIT,
    BenchDone,
    BenchReady,
    BenchRequest,
    BlockRequest,
    Buckets,
    Claims,
    Delta,
    Facts,
    FactsRequest,
    Goodbye,
    Have,
    Ids,
    IndirectProbe,
    IndirectReply,
    JoinGrant,
    JoinRequest,
    LaneProbe,
    LaneProbeReply,
    Lanes,
    Message,
    PathProbe,
    PathProbeReply,
    Probe,
    ProbeReply,
    ReadSingly,
    Refusal,
    RenewGrant,
    RenewRequest,
    SegmentLoss,
    Summary,
    Trial,
    TrialReply,
    Want,
)
from overlay.wire.packing import U16, U32, U64, Fields, pack

# -- implementation --------------------------------------------------------------------------------

_Reader = Callable[[Fields, int], object]
"""Reads one field of a message, or raises WireError."""


def _integer(high: int, low: int = 0) -> _Reader:
    return lambda message, index: message.integer(index, low, high)


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


def _each(read_untrusted: Callable[[object], object], limit: int) -> _Reader:
    def read(message: Fields, index: int) -> object:
        return tuple([read_untrusted(value) for value in message.sequence(index, limit)])

    return read


def _ids(message: Fields, index: int) -> object:
    ids = message.bytes(index, limit=IDS_LIMIT)
    if len(ids) % ID_SIZE:
        raise WireError(f"control message: {len(ids)} bytes of ids of {ID_SIZE}")
    return ids


_ITEMS: Final = _each(item_untrusted, ITEMS_LIMIT)
_CLAIMS: Final = _each(claim_untrusted, CLAIMS_LIMIT)

_LAYOUTS: Final[Mapping[int, tuple[Callable[..., Message], tuple[_Reader, ...]]]] = {
    1: (Probe, (_integer(U64), _CLAIMS)),
    2: (ProbeReply, (_integer(U64), _CLAIMS)),
    3: (PathProbe, (_integer(U16), _bytes())),
    4: (PathProbeReply, (_integer(U16),)),
    5: (Summary, (_bytes(size=ROOT_SIZE), _integer(U32), _bytes(size=ROOT_SIZE), _CLAIMS)),
    6: (Buckets, (_bytes(size=BUCKETS * ROOT_SIZE),)),
    7: (Ids, (_bytes(limit=BUCKETS), _ids)),
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
    18: (Lanes, (_integer(LANES_LIMIT, 1), _integer(U16), _integer(U64))),
    19: (LaneProbe, (_integer(LANES_LIMIT - 1), _integer(U64))),
    20: (LaneProbeReply, (_integer(LANES_LIMIT - 1), _integer(U64))),
    24: (Have, (_ids, Fields.boolean, _CLAIMS)),
    25: (Want, (_ids,)),
    26: (Claims, (_CLAIMS, Fields.boolean)),
    27: (IndirectProbe, (_integer(U64), _bytes(size=KEY_SIZE), _CLAIMS)),
    28: (IndirectReply, (_integer(U64), Fields.boolean, _CLAIMS)),
    29: (RenewRequest, (_integer(U64),)),
    30: (RenewGrant, (_integer(U64), _bytes(limit=CERTIFICATE_MAX))),
    31: (FactsRequest, (_integer(U64),)),
    32: (Facts, (_integer(U64), _text(FACTS_LIMIT))),
}
"""Number -> what it makes, and how each field is read, in order."""

_NUMBERS: Final = {layout[0]: number for number, layout in _LAYOUTS.items()}
_NAMES: Final = {kind: tuple(one.name for one in fields(kind)) for kind in get_args(Message)}


_UPKEEP: Final = frozenset(
    _NUMBERS[kind]
    for kind in (
        *(PathProbe, PathProbeReply, SegmentLoss, Trial, TrialReply, ReadSingly),
        *(Lanes, LaneProbe, LaneProbeReply, Goodbye),
    )
)
_LIVENESS: Final = (Probe, ProbeReply, IndirectProbe, IndirectReply, Claims)
_AT_ONCE: Final = frozenset(
    bytes([number])
    for number in (_UPKEEP | {_NUMBERS[kind] for kind in _LIVENESS}) - {_NUMBERS[Goodbye]}
)
_NUMBER_AT: Final = 1


def number_of(kind: type[Message]) -> int:
    """The number of a kind of message.

    >>> number_of(Probe)
    1
    """
    return _NUMBERS[kind]


def is_upkeep(message: bytes) -> bool:
    """Whether an encoded message serves the session it travels in, and nothing else.

    >>> is_upkeep(encode(PathProbeReply(1500))), is_upkeep(encode(Probe(7)))
    (True, False)
    """
    # An array of less than 16 fields has one byte in front, a number below 128 is one byte itself.
    return message[_NUMBER_AT] in _UPKEEP


def goes_at_once(message: bytes) -> bool:
    """Whether an encoded message says nothing that its sender must have stored before.

    Those about the session and about lives. Not the last one of a session: what waits for the disk
    would come after it.

    >>> goes_at_once(encode(Probe(7))), goes_at_once(encode(Goodbye()))
    (True, False)
    """
    return message[_NUMBER_AT : _NUMBER_AT + 1] in _AT_ONCE


def encode(message: Message) -> bytes:
    """The msgpack form of `message`.

    Raises:
        CapacityError: it is over `MESSAGE_LIMIT` (`control_message`). Nothing else.

    >>> encode(Probe(7)).hex()
    '93010790'
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
        raise NewerError(f"control message: number {number} is not known")
    make, readers = layout
    return make(*[read(message, index) for index, read in enumerate(readers, 1)])
