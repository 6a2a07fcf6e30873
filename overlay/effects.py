"""What a machine wants done: frozen values, executed in order by the driver or the simulator.

The core decides, the driver acts. A verb returns a list of these; tests compare lists with `==`.
The packet path does not use them (see `overlay.forwarding`): it works on buffers, in bursts.

Order is a promise: lists are executed one behind the other, each front to back, and when a
`Persist` fails what follows it in the same list is discarded and the engine gets back what was not
stored. That is how "stored before it is announced" is kept. What says nothing that is stored does
not wait for a slow disk; `overlay.writes` knows what that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from overlay.types import Endpoint, NodeId

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class SendDatagram:
    """Hand `datagram` to UDP. With `segment_size`, the kernel cuts it into datagrams of that size.

    Losing it is allowed: whoever asked for it repeats until answered.
    """

    endpoint: Endpoint
    datagram: bytes
    segment_size: int = 0
    at_once: bool = False
    """Whether it may overtake what waits for the disk: it says nothing that is stored."""


@dataclass(frozen=True, slots=True)
class SendControl:
    """Seal the encoded control `message` for `node` and send it. Executed by the engine itself.

    Sub-machines do not know sessions; without a session the message starts one and waits.
    """

    node: NodeId
    message: bytes
    once: bool = False
    """A call into the dark: whatever session there is, one initiation is sent, and only one."""


@dataclass(frozen=True, slots=True)
class SetOffload:
    """Use an offload of the socket from now on, or do without.

    Attributes:
        name: `udp_gso`, towards `endpoint` alone, or `udp_gro`, for all that is received.
        on: whether to use it; one that the socket never had stays off.
        endpoint: whom it is about; None with `udp_gro`.
    """

    name: str
    on: bool
    endpoint: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Persist:
    """Change the stored state of the node, durably, before anything that follows.

    Attributes:
        changes: keys of entries and their new values, None to remove one. All are stored or none
            (see `overlay.state`).
    """

    changes: tuple[tuple[bytes, bytes | None], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Renewed:
    """The node's new certificate is stored now: `Engine.on_renewed` is to be called.

    Attributes:
        certificate: that one, encoded.
    """

    certificate: bytes


@dataclass(frozen=True, slots=True)
class SessionUp:
    """A session with `node` is ready for data; packets may be sealed under its current keypair."""

    node: NodeId
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class SessionDown:
    """The last session with `node` ended, or its handshake was given up; `why` is one clause."""

    node: NodeId
    why: str


@dataclass(frozen=True, slots=True)
class StampRefused:
    """`node` knows a greater stamp of ours than we have made: our state may be an old one."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class RemovalShown:
    """`node` says that we were removed, and shows what it says is the authority's word for it."""

    node: NodeId
    proof: bytes


@dataclass(frozen=True, slots=True)
class NetworkChanged:
    """Routes, blocks, pods or addresses changed: the kernel may need to follow."""


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """The reply to a requested liveness probe (`muslin ping`) arrived."""

    node: NodeId
    token: int
    rtt: float


@dataclass(frozen=True, slots=True)
class Left:
    """The node has handed everything back; `confirmed` members have said that they know it."""

    confirmed: int


@dataclass(frozen=True, slots=True)
class BenchAsked:
    """A member wants to measure the way to here (`muslin bench`): serve it, or refuse.

    Attributes:
        node: who asks.
        request: its number, for the answer. Asking again with the same one is harmless.
        address: in the pod network, packed; where the asker will connect to.
        underlay: an underlay address of this node, packed; empty: none is to be measured.
        seconds: how long it may take in all.
    """

    node: NodeId
    request: int
    address: bytes
    underlay: bytes
    seconds: int


@dataclass(frozen=True, slots=True)
class BenchAnswered:
    """A member answered a request to measure.

    Attributes:
        node, request: which request to whom.
        token: what every connection begins with, 16 bytes for the overlay and 16 for the underlay;
            empty when it refused.
        port, underlay_port: TCP and UDP; 0: none there.
        code, text: why it refused; empty otherwise.
    """

    node: NodeId
    request: int
    token: bytes = field(default=b"", repr=False)
    port: int = 0
    underlay_port: int = 0
    code: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class BenchEnded:
    """A member says that this measurement is over, on its side at least."""

    node: NodeId
    request: int


BenchEffect = BenchAsked | BenchAnswered | BenchEnded


@dataclass(frozen=True, slots=True)
class FactsAsked:
    """A member asks what this machine is like (`muslin doctor`): tell it."""

    node: NodeId
    request: int


@dataclass(frozen=True, slots=True)
class FactsTold:
    """A member said what its machine is like; `text` is its word, a JSON object if it is honest."""

    node: NodeId
    request: int
    text: str


FactsEffect = FactsAsked | FactsTold
TalkEffect = BenchEffect | FactsEffect
"""What a member says to the daemon; see `overlay.talk`."""


@dataclass(frozen=True, slots=True)
class TellLane:
    """An order (`overlay.lanes.messages`) for the process of one of this node's other lanes.

    Orders for one lane are executed in this order. They may hold keys: for that process alone.
    """

    lane: int
    message: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TellDaemon:
    """A report (`overlay.lanes.messages`) from the process of a lane to its daemon."""

    message: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """Something an operator or developer may want in the log. Never contains secrets.

    Attributes:
        event: dotted lower case (`session.established`).
        fields: key=value details, names as in `node.logs`.
        debug: only of interest to developers.
    """

    event: str
    fields: Mapping[str, Scalar] = field(default_factory=dict)
    debug: bool = False


Effect = (
    SendDatagram
    | SetOffload
    | SendControl
    | Persist
    | Renewed
    | SessionUp
    | SessionDown
    | StampRefused
    | RemovalShown
    | NetworkChanged
    | ProbeAnswered
    | Left
    | TalkEffect
    | TellLane
    | TellDaemon
    | Report
)
