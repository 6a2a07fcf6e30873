"""What control messages say: one class each, in the order of their numbers.

How they are written as bytes is `overlay.wire.control`. Fields are only ever added at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from overlay.config import Limits
from overlay.types import NodeId
from overlay.wire.claims import Claim
from overlay.wire.items import ID_SIZE, Item

MESSAGE_LIMIT: Final = Limits().control_message
"""Bytes of an encoded message: it must fit one block of one burst."""

ITEMS_LIMIT: Final = 4096
"""Items in one message. The smallest has 15 bytes, so this is what `MESSAGE_LIMIT` has room for; a
longer list is several messages."""

CLAIMS_LIMIT: Final = 512
"""Claims in one message. With its proof one has some 115 bytes: these fit `MESSAGE_LIMIT`."""

IDS_LIMIT: Final = 4096 * ID_SIZE
"""Bytes of ids in one message."""

BUCKETS: Final = 256
"""Of a store's items: as many as there are values of the byte that names one. Each holds so few
items, at ten thousand, that listing those of one costs no more than the roots of all."""

CODE_LIMIT: Final = 64
"""Characters of a refusal's stable code."""

TEXT_LIMIT: Final = 500
"""Characters of a refusal's explanation: a sentence for a person."""

ROOT_SIZE: Final = 8

BENCH_TOKEN_SIZE: Final = 32
"""Of a measurement: 16 bytes for connections through the overlay, 16 for those beside it, which
travel in the clear."""

FACTS_LIMIT: Final = 4_000
"""Characters of what a node says of its machine: it goes in one burst, and is a page to read."""

BENCH_LONGEST: Final = 600
"""Seconds for which a member may keep another one busy with one measurement."""
LANES_LIMIT: Final = 16
"""Lanes of a node: a lane is four bits of the outer header."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Are you there? Answered at once with a `ProbeReply` of the same sequence."""

    sequence: int
    claims: tuple[Claim, ...] = ()
    """News of who lives, on every message of this kind that is small. So too below."""


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """I am."""

    sequence: int
    claims: tuple[Claim, ...] = ()


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
    """All that the sender holds, in two hashes. Equal roots: nothing to do."""

    root: bytes
    """Of its items."""
    count: int
    """How many items it has."""
    claims_root: bytes
    """Of what it believes about members, as far as that is not plainly alive."""
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, slots=True)
class Buckets:
    """The sender's items fall into `BUCKETS` buckets; these are their roots, one behind another."""

    roots: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ids:
    """All the items that the sender has in some buckets; those of the receiver differ."""

    buckets: bytes
    """Numbers of the buckets, a byte each; none: all of them."""
    ids: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Delta:
    """Items for the receiver's store."""

    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Have:
    """Items that the sender has and the receiver may lack."""

    ids: bytes
    """`ID_SIZE` bytes each."""
    confirm: bool = False
    """Answer with a `Want` also when nothing of it is lacking: an empty one."""
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, slots=True)
class Want:
    """Send me these items; none: I have all you offered."""

    ids: bytes


@dataclass(frozen=True, slots=True)
class Claims:
    """Who lives and who does not, as far as the sender knows."""

    claims: tuple[Claim, ...]
    ask: bool = False
    """What the receiver knows is wanted in return."""


@dataclass(frozen=True, slots=True)
class IndirectProbe:
    """Does `node` answer you? Answered with an `IndirectReply` of the same sequence."""

    sequence: int
    node: NodeId
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, slots=True)
class IndirectReply:
    """It does; or, with `reached` false, it has not yet: but the sender lives."""

    sequence: int
    reached: bool
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockRequest:
    """Give me an address block. Repeated with the same `request` until a deed or refusal comes."""

    request: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """No, to a `BlockRequest`, `JoinRequest`, `RenewRequest` or `BenchRequest`."""

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
class FactsRequest:
    """Tell me what your machine is like. Repeated with the same `request` until answered."""

    request: int


@dataclass(frozen=True, slots=True)
class Facts:
    """That, as a JSON object; what is in it is the daemons' affair."""

    request: int
    text: str


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


@dataclass(frozen=True, slots=True)
class Lanes:
    """The sender has `count` lanes. Answered with a `LaneProbeReply` of lane 0 and this token."""

    count: int
    """1 to 16."""
    up: int
    """Bit i says that lane i receives at present; bit 0 is always set."""
    token: int


@dataclass(frozen=True, slots=True)
class LaneProbe:
    """Do bursts from lane `lane` of the sender arrive where and under the keys this one did?"""

    lane: int
    token: int


@dataclass(frozen=True, slots=True)
class LaneProbeReply:
    """They do. Always sent by lane 0 to lane 0."""

    lane: int
    token: int


@dataclass(frozen=True, slots=True)
class RenewRequest:
    """Renew my certificate. For a member that can certify; the session says who asks."""

    request: int


@dataclass(frozen=True, slots=True)
class RenewGrant:
    """The certificate that takes the place of the receiver's."""

    request: int
    certificate: bytes


Message = (
    Probe
    | ProbeReply
    | PathProbe
    | PathProbeReply
    | Summary
    | Buckets
    | Ids
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
    | Lanes
    | LaneProbe
    | LaneProbeReply
    | Have
    | Want
    | Claims
    | IndirectProbe
    | IndirectReply
    | RenewRequest
    | RenewGrant
    | FactsRequest
    | Facts
)
