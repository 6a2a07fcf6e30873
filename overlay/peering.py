"""Everything between this node and one peer, put together: session, path, path MTU, control.

The machines below know one aspect each. Here they meet: a session that came up gives the path its
keypair and sends what waited; an authentic burst from a new address moves the path; a probe that
was answered lets the path carry larger segments.

    sessions ---- keypairs ----> paths <---- segment size ---- path MTU
                                   |
                     control messages and packets that waited

Error contract: nothing here raises for what a peer does. A peer without a known endpoint keeps its
control messages waiting, bounded; the oldest go first.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from overlay.config import Settings
from overlay.effects import Effect, Report
from overlay.errors import AuthError
from overlay.forwarding.outbound import Outbound
from overlay.forwarding.path import PeerPath
from overlay.losses import LossReports
from overlay.routing.mtu import PathMtu
from overlay.session.sessions import Sessions
from overlay.session.transport import Keypair
from overlay.trials import Trials
from overlay.types import Endpoint, NodeId, short_id
from overlay.wire.burst import BLOCK_HEADER_SIZE, TAG_SIZE, segment_payload
from overlay.wire.control import encode
from overlay.wire.messages import (
    Message,
    PathProbe,
    PathProbeReply,
    ReadSingly,
    SegmentLoss,
    Trial,
    TrialReply,
)

MAX_WAITING: Final = 64
"""Control messages that wait for one session. All of them are repeated by their senders."""

_PADDING: Final = 1000
_PATH_PROBE_OVERHEAD: Final = len(encode(PathProbe(1500, bytes(_PADDING)))) - _PADDING


class Peering:
    """All peers of one node.

    Args:
        sessions: handshakes and keypairs.
        outbound: seals; its queue is released when a session comes up.
        paths: node -> path, shared with the packet path.
        losses: what of the peers' bursts stays incomplete.
        settings: timing, offloads, and the largest underlay MTU worth probing.
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        outbound: Outbound,
        paths: dict[NodeId, PeerPath],
        losses: LossReports,
        settings: Settings,
    ) -> None:
        self.sessions = sessions
        self.paths = paths
        self.trials = Trials(outbound=outbound, keypairs=sessions.keypairs, settings=settings)
        self._losses = losses
        self._largest = settings.underlay_mtu
        self._outbound = outbound
        self._settings = settings
        self._candidates: dict[NodeId, tuple[Endpoint, ...]] = {}
        # Peers with several addresses, handshake under way: the one tried, and since when.
        self._trying: dict[NodeId, tuple[Endpoint, float]] = {}
        self._waiting: dict[NodeId, deque[bytes]] = {}
        self._mtus: dict[NodeId, PathMtu] = {}
        self._touched: set[NodeId] = set()
        # No path probe is due before this: a lower bound, because the driver asks for deadlines
        # after every burst, and going through all peers each time costs more than the burst.
        self._probes_at: float | None = None

    # -- peers ---------------------------------------------------------------------------------

    def introduce(
        self,
        node: NodeId,
        static: bytes,
        endpoints: tuple[Endpoint, ...],
        not_after: float = math.inf,
    ) -> None:
        """A peer exists, with these addresses. Known peers keep the address they use.

        One whose key is of low order cannot be talked to and gets no path; its certificate is
        valid all the same, so this is a member's doing and must not stop anybody else.
        """
        try:
            self.sessions.introduce(node, static, not_after)
        except AuthError:
            return
        path = self.paths.setdefault(node, PeerPath(node))
        if self._candidates.get(node) == endpoints:
            return
        self._candidates[node] = endpoints
        if path.keypair is None and endpoints:
            self._use(path, endpoints[0])

    def forget(self, node: NodeId, now: float) -> None:
        """The peer is no member any more."""
        self.sessions.forget(node, now)
        path = self.paths.pop(node, None)
        if path is not None:
            self._outbound.abandon(path)
            self._outbound.forget_flows()
        self._touched.add(node)
        for table in (self._candidates, self._waiting, self._mtus, self._trying):
            table.pop(node, None)
        self.trials.forget(node)

    def take_touched(self) -> set[NodeId]:
        """Peers that came, went, or got another endpoint or segment size since the last call."""
        touched, self._touched = self._touched, set()
        return touched

    def _use(self, path: PeerPath, endpoint: Endpoint | None) -> None:
        self._touched.add(path.node)
        if path.endpoint != endpoint:
            self._mtus.pop(path.node, None)
            self._outbound.forget_flows()
        mtu = self._mtus.get(path.node)
        path.use(endpoint, mtu.mtu if mtu else PeerPath(path.node).path_mtu)

    # -- sessions ------------------------------------------------------------------------------

    def connect(self, node: NodeId, now: float) -> list[Effect]:
        """Start a handshake with `node` unless a session is up or one is under way."""
        path = self.paths.get(node)
        if path is None or path.endpoint is None:
            return []
        self._try_others(path, path.endpoint, now)
        return self.sessions.connect(node, path.endpoint, now)

    def renew(self, node: NodeId, now: float) -> list[Effect]:
        """Start a handshake although the session is up: the peer is silent, or has moved."""
        path = self.paths.get(node)
        if path is None or path.endpoint is None:
            return []
        self._try_others(path, path.endpoint, now)
        return self.sessions.renew(node, path.endpoint, now)

    def _try_others(self, path: PeerPath, first: Endpoint, now: float) -> None:
        if len(self._candidates.get(path.node, ())) > 1:
            self._trying.setdefault(path.node, (first, now))

    def _rotate(self, now: float) -> None:
        """The next repetition of a handshake goes to the peer's next address."""
        for node, (tried, since) in list(self._trying.items()):
            if not self._candidates[node] or not self.sessions.is_connecting(node):
                del self._trying[node]  # nowhere else to try, or nothing left to
            elif now - since >= self._settings.timing.handshake_retry:
                endpoint = self._next_candidate(node, tried)
                self._trying[node] = (endpoint, now)
                self.sessions.connect(node, endpoint, now)
                path = self.paths[node]
                if path.keypair is None:
                    self._use(path, endpoint)

    def _next_candidate(self, node: NodeId, present: Endpoint | None) -> Endpoint:
        candidates = self._candidates[node]
        at = candidates.index(present) + 1 if present in candidates else 0
        return candidates[at % len(candidates)]

    def on_session_up(self, node: NodeId, endpoint: Endpoint, now: float) -> list[Effect]:
        """A keypair is ready: use it, and send what waited for it."""
        path = self.paths.setdefault(node, PeerPath(node))
        first = path.keypair is None
        path.keypair = self.sessions.sending_keypair(node, now)
        if first or path.endpoint != endpoint:
            self._use(path, endpoint)
        effects: list[Effect] = []
        if node not in self._mtus:
            effects += self._start_probing(path, now)
        effects += self.trials.on_session(path, now)
        self._outbound.release(path, now)
        for message in self._waiting.pop(node, ()):
            effects += self.send(node, message, now)
        return effects

    def on_session_down(self, node: NodeId) -> None:
        """No session and none under way: lose what waited, try the peer's next address."""
        path = self.paths.get(node)
        if path is None:
            return
        path.keypair = None
        self.trials.on_session_down(node)
        self._outbound.abandon(path)
        self._waiting.pop(node, None)
        if self._candidates.get(node):
            self._use(path, self._next_candidate(node, path.endpoint))

    def on_moved(self, keypair: Keypair, source: Endpoint, now: float) -> list[Effect]:
        """An authentic burst came from a new address: answer there from now on."""
        path = self.paths.get(keypair.node) if keypair.node is not None else None
        if path is None or path.endpoint == source or not keypair.confirmed:
            return []
        was = path.endpoint
        self._use(path, source)
        # The next rekey goes there, too.
        renewed = self.sessions.connect(path.node, source, now)
        moved = Report(
            "peer.moved", {"peer": short_id(path.node), "endpoint": str(source), "was": str(was)}
        )
        tried = self.trials.on_session(path, now)
        return [moved, *renewed, *self._start_probing(path, now), *tried]

    # -- control messages ----------------------------------------------------------------------

    def on_message(
        self, node: NodeId, message: Message, whole: bool, now: float
    ) -> list[Effect] | None:
        """A member's message about the path; None when it is about something else.

        `whole`: all segments of its burst came in one read.
        """
        match message:
            case PathProbe():
                effects = self.on_path_probe(node, message, now)
            case PathProbeReply():
                effects = self.on_path_probe_reply(node, message, now)
            case SegmentLoss():
                effects = self.on_segment_loss(node, now)
            case Trial():
                effects = self.trials.on_trial(node, message, whole=whole)
            case TrialReply():
                effects = self.trials.on_trial_reply(node, message, now)
            case ReadSingly():
                effects = self.trials.on_read_singly(node)
            case _:
                return None
        return effects

    def send(self, node: NodeId, message: bytes, now: float) -> list[Effect]:
        """Seal an encoded control message; without a session, start one and let it wait."""
        path = self.paths.get(node)
        if path is None:
            return []
        keypair = self.sessions.sending_keypair(node, now)
        if keypair is None or path.endpoint is None:
            waiting = self._waiting.setdefault(node, deque(maxlen=MAX_WAITING))
            waiting.append(message)
            return self.connect(node, now)
        sealed = self._outbound.seal_control(keypair, message, path.endpoint, path.path_mtu)
        path.tx_bytes += len(sealed.datagram)
        return [sealed]

    def drop_waiting(self) -> None:
        """Lose the messages that wait for sessions: what they say must not be said after all."""
        self._waiting.clear()

    def answer(self, keypair: Keypair, source: Endpoint, message: Message) -> list[Effect]:
        """Answer under the very keypair a message came with: joiners have no path."""
        mtu = PeerPath(NodeId(b"")).path_mtu
        return [self._outbound.seal_control(keypair, encode(message), source, mtu)]

    # -- path MTU ------------------------------------------------------------------------------

    def _start_probing(self, path: PeerPath, now: float) -> list[Effect]:
        mtu = PathMtu(timing=self._settings.timing, largest=self._largest, now=now)
        self._mtus[path.node] = mtu
        sizes = mtu.on_deadline(now)
        return self._follow(path, mtu, sizes, now)

    def _probe_path(self, path: PeerPath, sizes: list[int], now: float) -> list[Effect]:
        keypair = self.sessions.sending_keypair(path.node, now)
        if keypair is None or path.endpoint is None:
            return []
        effects: list[Effect] = []
        for size in sizes:
            room = segment_payload(size, path.endpoint.ip_overhead) - TAG_SIZE - BLOCK_HEADER_SIZE
            message = encode(PathProbe(size, bytes(room - _PATH_PROBE_OVERHEAD)))
            sealed = self._outbound.seal_control(keypair, message, path.endpoint, size)
            path.tx_bytes += len(sealed.datagram)
            effects.append(sealed)
        return effects

    def on_path_probe(self, node: NodeId, probe: PathProbe, now: float) -> list[Effect]:
        """A probe arrived whole: say so."""
        return self.send(node, encode(PathProbeReply(probe.size)), now)

    def on_path_probe_reply(self, node: NodeId, reply: PathProbeReply, now: float) -> list[Effect]:
        """A probe of ours arrived: larger segments may follow."""
        path, mtu = self.paths.get(node), self._mtus.get(node)
        if path is None or mtu is None:
            return []
        sizes = mtu.on_reply(reply.size, now)
        return self._follow(path, mtu, sizes, now)

    def on_segment_loss(self, node: NodeId, now: float) -> list[Effect]:
        """Bursts of ours stayed incomplete there: ask whether the size in use still passes."""
        path, mtu = self.paths.get(node), self._mtus.get(node)
        if path is None or mtu is None:
            return []
        return self._follow(path, mtu, mtu.on_loss(now), now)

    def on_underlay_mtu(self, largest: int, now: float) -> list[Effect]:
        """The machine's links carry packets of up to `largest` bytes from now on."""
        effects: list[Effect] = []
        if largest != self._largest:
            self._largest = largest
            for node, mtu in list(self._mtus.items()):
                effects += self._follow(self.paths[node], mtu, mtu.on_largest(largest, now), now)
        return effects

    def path_is_settled(self, node: NodeId) -> bool:
        """Whether no larger size is being looked for."""
        mtu = self._mtus.get(node)
        return mtu is not None and not mtu.searching

    def on_too_big(self, endpoint: Endpoint, now: float) -> list[Effect]:
        """The kernel refused segments to `endpoint` as too big for the interface."""
        effects: list[Effect] = []
        for node, mtu in list(self._mtus.items()):
            path = self.paths[node]
            if path.endpoint == endpoint:
                sizes = mtu.on_too_big(path.path_mtu, now)
                effects += self._follow(path, mtu, sizes, now)
        return effects

    def _follow(self, path: PeerPath, mtu: PathMtu, sizes: list[int], now: float) -> list[Effect]:
        """The path MTU machine has done something: adopt its result, send the probes it wants."""
        self._expect(mtu)
        return [*self._adopt(path, mtu), *self._probe_path(path, sizes, now)]

    def _expect(self, mtu: PathMtu) -> None:
        due = mtu.next_deadline()
        if due is not None:
            self._probes_at = due if self._probes_at is None else min(self._probes_at, due)

    def _adopt(self, path: PeerPath, mtu: PathMtu) -> list[Effect]:
        if mtu.mtu == path.path_mtu:
            return []
        self._touched.add(path.node)
        path.use(path.endpoint, mtu.mtu)
        return [Report("path.mtu", {"peer": short_id(path.node), "mtu": mtu.mtu}, debug=True)]

    # -- time ----------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `on_deadline` has something to do next."""
        deadlines = (
            self._probes_at,
            self.sessions.next_deadline(),
            self.trials.next_deadline(),
            self._losses.next_deadline(),
        )
        return min((at for at in deadlines if at is not None), default=None)

    def on_deadline(self, now: float) -> list[Effect]:
        """Retries, rekeys and probes that are due."""
        effects: list[Effect] = []
        sessions_at = self.sessions.next_deadline()
        if sessions_at is not None and now >= sessions_at:
            self._rotate(now)
            effects += self.sessions.on_deadline(now)
        effects += self.trials.on_deadline(now)
        effects += self._losses.on_deadline(now)
        if self._probes_at is None or now < self._probes_at:
            return effects
        self._probes_at = None
        for node, mtu in list(self._mtus.items()):
            due = mtu.next_deadline()
            if due is not None and due <= now:
                sizes = mtu.on_deadline(now)
                effects += self._follow(self.paths[node], mtu, sizes, now)
            else:
                self._expect(mtu)
        return effects
