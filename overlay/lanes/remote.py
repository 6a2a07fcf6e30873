"""One peer as a worker sees it: which keypair and which lane of the peer to use.

A way is a keypair and a lane of the peer. A worker of lane i knows at most two ways worth having:

    direct    lane r = i mod the peer's lanes, at its port + r, from this worker's own port
    shared    lane 0 of the peer, from the socket of this node's own lane 0: where that gets
              through, so does this, whatever NAT or firewall lies between

No way is used before it was proven: a probe, sealed as packets would be, was answered. That shows
three things at once: datagrams arrive, the peer's lane has the keys, and it is alive. Until the
direct way under a new keypair is proven the one under the old keypair stays, so a rekey loses
nothing.

    new way --probe, 0.1 s, 0.3 s, 1 s .. 30 s--> answered: proven
       ^                                             |
       +--- 3 confirmations unanswered, 1 s apart ---+   direct ways only, every 10 s of traffic

The receiving side has no choice to make: it opens what any lane of the peer seals for this one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from overlay.forwarding.path import PeerPath
from overlay.lanes.messages import Key, Peer, lane_keys
from overlay.session.index import lane_index
from overlay.session.keyring import FAREWELL
from overlay.session.transport import Keypair, lane_byte
from overlay.types import Endpoint, NodeId
from overlay.wire.handshake import Suite

PROBE_WAITS: Final = (0.1, 0.3, 1.0, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds after each unanswered probe of a way; the last one for ever. A way that does not work is
a NAT or firewall, which rarely changes."""

CONFIRM_AFTER: Final = 10.0
"""Seconds between looks whether a direct way with traffic still works."""

CONFIRM_WAIT: Final = 1.0
CONFIRM_TRIES: Final = 3


class ViaFirst(Endpoint):
    """An endpoint of a peer's lane 0, to be sent to from the socket of our own lane 0."""

    __slots__ = ()


class Way(NamedTuple):
    """A keypair, by its local index, and a lane of the peer."""

    key: int
    lane: int


class Probing(NamedTuple):
    """A probe to send: seal `token` under `keypair`, send to `endpoint`."""

    keypair: Keypair
    endpoint: Endpoint
    token: int


class _Proof:
    """What is known of one way."""

    __slots__ = ("next_at", "proven", "seen_bytes", "token", "tries")

    def __init__(self, token: int, now: float) -> None:
        self.token = token
        self.tries = 0
        self.next_at = now
        self.proven = False
        self.seen_bytes = 0


class _Keys:
    """A keypair of the session, split up by lanes of the peer."""

    def __init__(self, key: Key, own: int) -> None:
        self.key = key
        self.gone_at = math.inf
        self.by_lane: dict[int, Keypair] = {}
        self._own = own

    def pair(self, lane: int) -> Keypair:
        """The keypair with lane `lane` of the peer; made once, for its counters."""
        if lane not in self.by_lane:
            key = self.key
            self.by_lane[lane] = Keypair(
                lane_keys(key.keys, lane),
                suite=Suite(key.suite),
                local_index=key.index,
                remote_index=key.remote_index,
                initiator=True,
                created_at=key.created_at,
                expires_at=key.expires_at,
                node=NodeId(key.node),
                lane=lane_byte(self._own, lane),
            )
        return self.by_lane[lane]


class Remote:
    """One peer.

    Args:
        node: who it is.
        own: this worker's lane, 1 to 15.
        keypairs: where the packet path looks up what opens; this keeps the peer's part of it.
        new_token: a number never given before, for a probe.
    """

    def __init__(
        self,
        node: NodeId,
        own: int,
        keypairs: dict[int, Keypair],
        new_token: Callable[[], int],
    ) -> None:
        self.path = PeerPath(node)
        self.live = False
        """Whether the daemon has a session with it."""
        self._own = own
        self._keypairs = keypairs
        self._new_token = new_token
        self._peer = Peer(node, "", 0, self.path.path_mtu, 1, 1, live=False, singly=False)
        self._keys: dict[int, _Keys] = {}
        self._proofs: dict[Way, _Proof] = {}
        self._current = 0

    # -- what the daemon says ----------------------------------------------------------------------

    def on_peer(self, peer: Peer, now: float) -> None:
        """Something about the peer has changed."""
        was = self._peer.host, self._peer.port, self._target()
        self._peer, self.live = peer, peer.live
        if was != (peer.host, peer.port, self._target()):
            # Lane 0 vouches for the shared way. The direct one may go through other boxes now, or
            # to a process that has no keys yet.
            self._proofs = {way: proof for way, proof in self._proofs.items() if not way.lane}
        for keys in self._keys.values():
            self._widen(keys)
        self._seek(now)
        self.choose(now)

    def on_key(self, key: Key) -> None:
        """There is a new keypair: open what comes under it at once.

        One that is known stays as it is: made anew it would count from 0, under the same keys.
        """
        if key.index not in self._keys:
            keys = self._keys[key.index] = _Keys(key, self._own)
            self._widen(keys)

    def on_use(self, index: int, now: float) -> None:
        """Seal under that keypair as soon as it is proven; 0: there is no session."""
        self._current = index
        self._seek(now)
        self.choose(now)

    def on_key_gone(self, index: int, now: float) -> None:
        """The daemon let go of a keypair. A peer's lanes change over one by one."""
        if index in self._keys:
            self._keys[index].gone_at = now + FAREWELL

    def on_answered(self, token: int, now: float) -> None:
        """A probe came through."""
        for way, proof in self._proofs.items():
            if proof.token == token:
                proof.proven, proof.tries = True, 0
                proof.seen_bytes = self.path.tx_bytes
                proof.next_at = now + CONFIRM_AFTER if way.lane else math.inf
                self.choose(now)
                return

    def clear(self) -> None:
        """Forget all keys."""
        for index in list(self._keys):
            self._drop(index)
        self.path.keypair = None

    # -- keys --------------------------------------------------------------------------------------

    def _widen(self, keys: _Keys) -> None:
        """Open what any lane of the peer seals for ours."""
        for lane in range(self._peer.lanes):
            index = lane_index(keys.key.index, lane_byte(lane, self._own))
            self._keypairs[index] = keys.pair(lane)

    def _drop(self, index: int) -> None:
        keys = self._keys.pop(index)
        for lane in keys.by_lane:
            self._keypairs.pop(lane_index(index, lane_byte(lane, self._own)), None)
        self._proofs = {way: proof for way, proof in self._proofs.items() if way.key != index}

    # -- ways --------------------------------------------------------------------------------------

    def _target(self) -> int:
        """The lane of the peer that is ours to use: spread, and alive."""
        lane = self._own % self._peer.lanes
        return lane if self._peer.up >> lane & 1 else 0

    def _seek(self, now: float) -> None:
        """Want the two ways under the current keypair; of others, keep what works."""
        wanted: set[Way] = set()
        if self._current in self._keys:
            wanted = {Way(self._current, 0), Way(self._current, self._target())}
        self._proofs = {
            way: proof for way, proof in self._proofs.items() if proof.proven or way in wanted
        }
        for way in sorted(wanted):
            if way not in self._proofs:
                self._proofs[way] = _Proof(self._new_token(), now)

    def choose(self, now: float) -> None:
        """Take the best proven way: direct before shared, then the newest keypair."""
        best: tuple[tuple[bool, bool, float], Way] | None = None
        target = self._target()
        for way, proof in self._proofs.items():
            keys = self._keys[way.key]
            usable = now < keys.gone_at and keys.pair(way.lane).usable(now)
            if not proof.proven or not usable or way.lane not in (0, target):
                continue
            rank = (way.lane != 0, way.key == self._current, keys.key.created_at)
            if best is None or (rank, way) > best:
                best = rank, way
        # Without a proven way packets wait, as they do for a session; they are not refused.
        way = best[1] if best is not None else Way(0, 0)
        self.path.keypair = self._keys[way.key].pair(way.lane) if way.key else None
        endpoint = self._endpoint(way.lane) if self._peer.host else None
        self.path.use(endpoint, self._peer.path_mtu)

    def _endpoint(self, lane: int) -> Endpoint:
        if lane:
            return Endpoint(self._peer.host, self._peer.port + lane)
        return ViaFirst(self._peer.host, self._peer.port)

    @property
    def settled(self) -> bool:
        """Whether packets to the peer can leave now, or there is no session they could use."""
        return not self.live or self.path.keypair is not None

    @property
    def worn(self) -> bool:
        """Whether the session's present keypair was used up to the count, as far as it is ours."""
        keys = self._keys.get(self._current)
        return keys is not None and any(pair.worn for pair in keys.by_lane.values())

    # -- time --------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """When `on_deadline` has something to do next; never: infinite."""
        proofs = min((proof.next_at for proof in self._proofs.values()), default=math.inf)
        ends = min(
            (min(keys.gone_at, keys.key.expires_at) for keys in self._keys.values()),
            default=math.inf,
        )
        return min(proofs, ends)

    def on_deadline(self, now: float) -> list[Probing]:
        """Drop keys that are over; the probes that are due."""
        for index, keys in list(self._keys.items()):
            if now >= min(keys.gone_at, keys.key.expires_at):
                self._drop(index)
        probes: list[Probing] = []
        for way, proof in list(self._proofs.items()):
            if now >= proof.next_at and self._is_due(way, proof, now) and self._peer.host:
                pair = self._keys[way.key].pair(way.lane)
                probes.append(Probing(pair, self._endpoint(way.lane), proof.token))
        self.choose(now)
        return probes

    def _is_due(self, way: Way, proof: _Proof, now: float) -> bool:
        """Whether to probe a way whose time has come; sets its next time."""
        if not proof.proven:
            proof.next_at = now + PROBE_WAITS[min(proof.tries, len(PROBE_WAITS) - 1)]
            proof.tries += 1
            return True
        if proof.tries >= CONFIRM_TRIES:
            self._give_up_direct(now)
            return False
        used = self.path.keypair is self._keys[way.key].by_lane.get(way.lane)
        if not proof.tries:
            moved = self.path.tx_bytes != proof.seen_bytes
            proof.seen_bytes = self.path.tx_bytes
            if not (used and moved):
                proof.next_at = now + CONFIRM_AFTER
                return False
            proof.token = self._new_token()
        proof.tries += 1
        proof.next_at = now + CONFIRM_WAIT
        return True

    def _give_up_direct(self, now: float) -> None:
        """The direct way went silent, under whatever keypair: prove it anew."""
        self._proofs = {way: proof for way, proof in self._proofs.items() if not way.lane}
        self._seek(now)

    def check_invariants(self) -> None:
        """Assert what must always hold; called by tests after each step."""
        assert {way.key for way in self._proofs} <= self._keys.keys()
        chosen = self.path.keypair
        if chosen is not None:
            way = Way(chosen.local_index, chosen.lane & 15)
            assert self._proofs[way].proven
