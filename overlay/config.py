"""Settings of the core: one frozen object per subsystem, with unit, reason and trade-off.

Core code never reads a file or an environment variable. `node.config` turns TOML, variables and
flags into these objects; tests and the simulator make them directly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Self

from overlay.types import Prefix

CERTIFICATE_LIFETIME: Final = 90 * 86_400
"""Seconds. Three months: a stolen key is no member for ever, and an authority's node that is away
for weeks goes unnoticed."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When sessions and gossip act. Session values follow WireGuard's paper, section 6.1."""

    rekey_after: float = 120.0
    """A session older than this is replaced by its initiator."""

    reject_after: float = 180.0
    """No session is used past this age, whatever happens."""

    handshake_retry: float = 1.0
    """Wait for a response, three times; then it doubles up to `handshake_retry_max`. WireGuard
    waits 5 s; a pod network is expected to carry traffic again within 3 s of a restart."""

    handshake_retry_max: float = 5.0

    handshake_give_up: float = 20.0
    """After this long without a response the queued packets are dropped and the peer reported."""

    gossip_interval: float = 1.0
    """Between comparisons of the store with that of a random neighbour."""

    offer_interval: float = 0.1
    """News for one neighbour within this time go together. The first goes at once."""

    want_retry: float = 0.1
    """A single item that did not come from near by is asked for again, of the next that offered it.
    The more is under way and the longer a round trip takes, the longer the wait."""

    probe_interval: float = 0.5
    """Between probes, of one neighbour after the other: with four, each every 2 s. It is also what
    keeps a NAT binding open."""

    probe_timeout: float = 0.5
    """For the reply to a probe, half-way repeated; then as long again for others to reach it."""

    suspicion: float = 9.0
    """Least time to contradict a suspicion, in probe intervals, times log10 of the members where
    these are more than ten: 4.5 s in a small cluster, 13.5 s at 1,000. With the two timeouts it
    exceeds a pause of 5 s, and a crash is noticed within 8 s."""

    suspicion_most: float = 2.0
    """Times the least: time to contradict a suspicion that nobody else confirms."""

    refute_within: float = 3.0
    """Who is said to be dead, and was not suspected here before, has this long to contradict."""

    claims_interval: float = 0.2
    """Between messages that carry nothing but claims, while there are new ones."""

    dead_call_interval: float = 2.0
    """Between calls of a random dead member, for ever: halves of a cluster merge by themselves."""

    silent_after: float = 4.0
    """Sent for this long without hearing anything: the peer may have restarted without its keys, so
    a new handshake is started. A live one shows itself every 2 to 3 s while it is sent to."""

    idle_after: float = 90.0
    """A session that carried neither packets nor gossip for this long ends. Less than
    `rekey_after`, so that sessions nobody uses are not rekeyed."""

    record_interval: float = 0.5
    """Least time between two announcements of a node's own record; changes in between go together.
    A change after a pause is announced at once."""

    reassembly_after: float = 1.0
    """Segments of a burst that is incomplete for this long are dropped."""

    request_retry: float = 0.5
    """Between repetitions of an unanswered request (a block, a join)."""

    block_idle_after: float = 600.0
    """A block without pods for this long goes back to the authority's node. Long against the life
    of a batch of pods, because asking for it again takes a moment."""

    leave_after: float = 3.0
    """A leaving node waits at most this long for members to confirm."""

    quarantine: float = 60.0
    """Before the address of a deleted pod is given to another: longer than others remember it."""

    path_probe_retry: float = 0.5
    """Between path MTU probes of one size."""

    path_confirm_interval: float = 30.0
    """Between confirmations that the present segment size still passes."""

    path_raise_interval: float = 600.0
    """Between attempts to find a larger path MTU (RFC 8899, PMTU_RAISE_TIMER)."""

    renew_spread: float = 300.0
    """A certificate that is due to be renewed is asked for within this long, so that not all nodes
    of a cluster ask at once; and within a sixtieth of its life. When another authority is put in
    use, this is how long the cluster takes to follow."""

    renew_retry: float = 5.0
    """Wait for a new certificate; then it doubles up to `renew_retry_max`, for ever."""

    renew_retry_max: float = 900.0
    """Certificates are renewed weeks before they end; a minute does not matter."""

    @classmethod
    def quick(cls) -> Self:
        """For tests on virtual time that want many rekeys in few events."""
        return cls(rekey_after=12.0, reject_after=18.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """Everything that is bounded, and which growth each bound prevents."""

    queued_packets: int = 256
    """Packets waiting for a session, per peer. A TCP start fits; a flood to a dead peer does not
    hold memory."""

    queued_bytes: int = 1 << 20
    """The same in bytes: a super-packet is 62 KB, so counting packets alone would allow 16 MB."""

    reassembly_per_session: int = 64
    """Incomplete bursts remembered per session (64 bursts are at most 4 MB)."""

    reassembly_total: int = 512
    """Incomplete bursts remembered in all."""

    control_message: int = 60_000
    """Largest control message: one must fit a burst."""

    record: int = 48_000
    """Largest node record; 254 pods with long names fit."""

    items: int = 20_000
    """Gossip items (records and deeds) kept in all. A member cannot fill memory with inventions."""

    deed_chain: int = 128
    """Transfers in one block's chain of title."""

    handshakes_per_second: int = 200
    """Initiations answered per second before cookies are demanded."""

    half_open: int = 256
    """Responder handshakes not yet confirmed by data."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one engine."""

    timing: Timing = field(default_factory=Timing)
    limits: Limits = field(default_factory=Limits)
    mtu: int = 1500
    """Inner MTU of pods and the TUN, whatever the underlay carries."""

    underlay_mtu: int = 1500
    """Largest underlay packet worth probing for, at start; `Engine.on_underlay_mtu` changes it."""

    offloads: tuple[str, ...] = ()
    """What the ports do: `udp_gso` and `udp_gro` of the socket; `checksum`, `tso`, `uso` of the
    TUN."""

    routes: tuple[Prefix, ...] = ()
    """Outside prefixes to advertise, at start, as far as the certificate allows; `Engine.on_routes`
    changes it."""

    prefer_aes: bool = True
    """Whether this machine has AES instructions; ChaCha20-Poly1305 is chosen where one end lacks
    them."""

    certificate_lifetime: int = CERTIFICATE_LIFETIME
    """Seconds that certificates live which this node makes, if the authority's key is here."""
