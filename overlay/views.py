"""What an engine shows of itself: plain values for tables, JSON, kernel state and tests.

`Engine.snapshot()` builds a `Snapshot`; nothing in it aliases live state. Field names are the JSON
keys that users see where the two coincide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from overlay.attachment import NOTHING_SAID, Attachment
from overlay.types import Address, Endpoint, NodeId, Prefix


class NodeState(StrEnum):
    """What this node believes of a member, from its own evidence and what others say."""

    READY = "ready"  #: lives, as far as anybody knows
    SUSPECT = "suspect"  #: did not answer somebody that watches it, and has not contradicted yet
    DEAD = "dead"  #: did not contradict in time
    LEFT = "left"  #: said good-bye itself
    REMOVED = "removed"  #: an operator said that it is gone for ever


class TokenState(StrEnum):
    """What has become of a join token."""

    UNUSED = "unused"  #: admits a node until it expires
    USED = "used"  #: has admitted one
    EXPIRED = "expired"  #: nobody came in time
    REVOKED = "revoked"  #: an operator has taken it back, used or not


@dataclass(frozen=True, slots=True)
class TokenView:
    """One join token, without its secret."""

    id: bytes
    state: TokenState
    expires: int
    """Unix seconds."""
    made: int
    """Unix seconds."""
    node: str
    """Name of the node it has admitted; empty if none."""
    routes: tuple[Prefix, ...] = ()
    """Outside networks that node may advertise."""


@dataclass(frozen=True, slots=True)
class AuthorityView:
    """One authority of the cluster."""

    key: bytes
    """Its public key, 32 bytes."""
    standing: str
    """`in-use`, `trusted` or `removed`."""
    since: int
    """Unix seconds of its last change."""
    held: bool
    """Whether this node has the private key."""
    members: tuple[str, ...]
    """Names of members whose certificates it has signed, as far as their records tell."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One member as this node sees it."""

    id: NodeId
    name: str
    state: NodeState
    local: bool
    address: Address | None
    """Its address in the pod network; None until it owns a block."""
    address6: Address | None
    endpoint: Endpoint | None
    blocks: tuple[Prefix, ...]
    pods: int
    version: str
    """Software version from its record."""
    path: str
    """`local`, `direct` (a session is up, and the node answers if it is probed) or `none`."""
    rtt: float | None
    loss: float | None
    """Share of the last probes that stayed unanswered, 0.0 to 1.0; None for one not probed."""
    seen: float | None
    """Seconds since it was last heard directly; 0.0 for the local node, None if never."""
    conflict: bool = False
    """Two machines have signed as this node."""
    expires: int | None = None
    """When its certificate ends, in Unix seconds; None for one that is no member any more."""


@dataclass(frozen=True, slots=True)
class PodView:
    """One pod anywhere in the cluster."""

    name: str
    node: str
    address: Address
    address6: Address | None
    netns: str
    """Path of its namespace; empty for pods of other nodes."""
    state: str
    """`ready`, or the state of its node when that is not ready."""
    since: float
    """Unix seconds of its creation."""
    local: bool
    owner: str = ""
    """Who asked for it; empty for pods of other nodes."""
    attachment: Attachment = NOTHING_SAID
    """What its runtime said of it; the default for pods of other nodes."""


@dataclass(frozen=True, slots=True)
class ReservationView:
    """An address of this node that is held for an owner."""

    owner: str
    address: Address
    address6: Address | None
    since: float
    """Unix seconds."""
    pod: str
    """The pod that has it; empty while none does."""


@dataclass(frozen=True, slots=True)
class RouteView:
    """One entry of the route table."""

    prefix: Prefix
    node: str
    via: Endpoint | None
    origin: str
    """`block`: derived from the ownership of an address block. `advertised`: a network outside of
    the cluster that the node takes packets to, as the authority has consented."""
    since: float
    """Monotonic seconds when it appeared."""
    stale: bool = False
    """Its node is dead. The route stays: only its owner or an operator can end it."""


@dataclass(frozen=True, slots=True)
class SessionView:
    """One session with a peer."""

    node: str
    endpoint: Endpoint | None
    cipher: str
    established: float
    """Monotonic seconds of the first handshake since the peer was last unreachable."""
    rekeyed: float
    """Monotonic seconds of the last handshake."""
    mtu: int
    """Path MTU in use: the largest underlay packet this node sends to the peer."""
    tx_bytes: int
    rx_bytes: int
    drops: Mapping[str, int]
    mtu_state: str = "base"
    """`base` while the path carries no packets: nothing larger was looked for. Else `searching` or
    `settled`."""
    offloads: tuple[str, ...] = ()
    """What is used with the peer: names as in `Settings.offloads`."""
    trial: str = ""
    """What came of trying segmented sends; empty where nothing was tried."""
    id: str = ""
    """The peer's, in hexadecimal digits: of one without a record it is the only name."""


@dataclass(frozen=True, slots=True)
class BlockView:
    """A run of blocks with one owner and one state, as an aligned prefix."""

    prefix: Prefix
    prefix6: Prefix | None
    node: str
    blocks: int
    state: str
    """`in-use` (one block, routed), `free` (owned, not routed, given to nodes that ask), `removed`
    (of a removed node) or `held` (passed through one): nobody may begin to use those two."""
    pods: int


@dataclass(frozen=True, slots=True)
class LedgerView:
    """Every thing read ends in exactly one counter.

    At rest `received == sent + queued + sum(drops.values())`. Shown to users as `in`, `out`,
    `queued`, `drops`.
    """

    received: int
    sent: int
    queued: int
    drops: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that keeps the node from being well; or a notice, which does not.

    Attributes:
        code: stable, dashed (`no-block`).
        what: what is wrong; why: the cause as far as known; fix: what to do.
    """

    code: str
    what: str
    why: str
    fix: str


@dataclass(frozen=True, slots=True)
class LocalView:
    """What the kernel of a node must follow: a small part of the snapshot, whatever the cluster."""

    cidr: Prefix
    cidr6: Prefix | None
    address: Address | None
    address6: Address | None
    own_prefixes: tuple[Prefix, ...]
    """Blocks this node uses, both families: what its kernel answers `unreachable` for when no
    pod has the address."""
    pods: tuple[PodView, ...]
    """Those of this node."""
    outside: tuple[Prefix, ...] = ()
    """Outside prefixes that other nodes take packets to."""
    own_outside: tuple[Prefix, ...] = ()
    """Outside prefixes that this node takes packets to."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything an engine shows of itself at one moment."""

    now: float
    name: str
    cluster: str
    """Cluster id, hex."""
    cidr: Prefix
    cidr6: Prefix | None
    address: Address | None
    address6: Address | None
    nodes: tuple[NodeView, ...]
    """By name. A name may have had several bearers; the present one comes first."""
    pods: tuple[PodView, ...]
    routes: tuple[RouteView, ...]
    sessions: tuple[SessionView, ...]
    blocks: tuple[BlockView, ...]
    own_prefixes: tuple[Prefix, ...]
    """Blocks this node uses, both families: what its kernel answers `unreachable` for when no
    pod has the address."""
    ledger: LedgerView
    problems: tuple[Problem, ...] = field(default=())
    notices: tuple[Problem, ...] = ()
    """What an operator should know of a node that is well."""
    gossip: Mapping[str, int] = field(default_factory=dict)
    """What happened among members that should not happen often; see `Gossip.counters`."""
    items: int = 0
    """How many gossiped items it holds."""
    expires: int = 0
    """When this node's certificate ends, in Unix seconds."""
    outside: tuple[Prefix, ...] = ()
    """Outside prefixes that other nodes take packets to."""
    own_outside: tuple[Prefix, ...] = ()
    """Outside prefixes that this node takes packets to."""
