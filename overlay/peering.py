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
from collections.abc import Callable
from typing import Final, NamedTuple

from overlay.addresses import Addresses
from overlay.agenda import earliest
from overlay.config import Settings
from overlay.effects import Effect, Report
from overlay.errors import AuthError
from overlay.forwarding.outbound import Outbound
from overlay.forwarding.path import BASE_PATH_MTU, PeerPath
from overlay.losses import LossReports
from overlay.pathmtus import PathMtus
from overlay.session.sessions import Sessions
from overlay.session.transport import Keypair
from overlay.takeover import Takeovers
from overlay.trials import Trials
from overlay.types import Endpoint, NodeId, short_id
from overlay.wire.control import encode, is_upkeep
from overlay.wire.messages import (
    Goodbye,
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


class Contact(NamedTuple):
    """What it takes to start a session with a member."""

    static: bytes
    """Its X25519 key, 32 bytes."""
    endpoints: tuple[Endpoint, ...]
    """Where it may be reached, best first; empty: only it can start."""
    not_after: float
    """Unix seconds at which its certificate expires."""


class Peering:
    """The peers of one node: members that it talks to, or did a moment ago.

    Args:
        sessions: handshakes and keypairs.
        outbound: seals; its queue is released when a session comes up.
        paths: node -> path, shared with the packet path.
        losses: what of the peers' bursts stays incomplete.
        directory: how to reach a member; None for whoever is none, and for this node itself.
        usable: whether datagrams may be sent to an address.
        settings: timing, offloads, and the largest underlay MTU worth probing.
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        outbound: Outbound,
        paths: dict[NodeId, PeerPath],
        losses: LossReports,
        directory: Callable[[NodeId], Contact | None],
        usable: Callable[[Endpoint], bool],
        settings: Settings,
    ) -> None:
        self.sessions = sessions
        self.paths = paths
        self.mtus = PathMtus(
            paths=paths, outbound=outbound, keypair=sessions.sending_keypair, settings=settings
        )
        self.trials = Trials(outbound=outbound, keypairs=sessions.keypairs, settings=settings)
        self.takeovers = Takeovers(sessions)
        self._losses = losses
        self._directory = directory
        self._outbound = outbound
        self._settings = settings
        self.addresses = Addresses(usable)
        self._waiting: dict[NodeId, deque[bytes]] = {}
        self._touched: set[NodeId] = set()

    # -- peers ---------------------------------------------------------------------------------

    def path_to(self, node: NodeId) -> PeerPath | None:
        """The path to a member, made when it is asked for; None for one that cannot be reached."""
        path = self.paths.get(node)
        if path is not None:
            return path
        contact = self._directory(node)
        if contact is None:
            return None
        self.introduce(node, *contact)
        return self.paths.get(node)

    def refresh(self, node: NodeId) -> None:
        """What is known of a member has changed. Nothing happens if there is no path to it."""
        contact = self._directory(node) if node in self.paths else None
        if contact is not None:
            self.introduce(node, *contact)

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
        if self.addresses.tell(node, endpoints) and path.keypair is None:
            for first in self.addresses.of(node)[:1]:
                self._use(path, first)

    def forget(self, node: NodeId, now: float) -> list[Effect]:
        """The peer is no member any more."""
        self.sessions.forget(node, now)
        self.addresses.forget(node)
        return self._drop(node)

    def is_quiet(self, node: NodeId) -> bool:
        """Whether nothing waits for a session that can be had, and none is being made."""
        path = self.paths[node]
        waiting = path.queue or path.packed or (path.endpoint and self._waiting.get(node))
        return not waiting and not self.sessions.is_connecting(node)

    def lapse(self, node: NodeId, now: float) -> list[Effect]:
        """Nobody needs the session any more: tell the peer, keep nothing of it."""
        effects: list[Effect] = []
        if self.paths[node].keypair is not None:
            effects = self.send(node, encode(Goodbye()), now)
            effects.append(Report("session.lapsed", {"peer": short_id(node)}, debug=True))
        self.sessions.lapse(node)
        return effects + self._drop(node)

    def _drop(self, node: NodeId) -> list[Effect]:
        path = self.paths.pop(node, None)
        if path is not None:
            self._outbound.abandon(path)
            self._outbound.forget_flows()
        self._touched.add(node)
        self.addresses.drop(node)
        self._waiting.pop(node, None)
        self.mtus.forget(node)
        self.takeovers.forget(node)
        return self.trials.forget(node)

    @property
    def is_touched(self) -> bool:
        """Whether `take_touched` would return any."""
        return bool(self._touched or self.mtus.changed)

    def take_touched(self) -> set[NodeId]:
        """Peers that came, went, or got another endpoint or segment size since the last call."""
        touched, self._touched = self._touched | self.mtus.changed, set()
        self.mtus.changed = set()
        return touched

    def _use(self, path: PeerPath, endpoint: Endpoint | None) -> None:
        self._touched.add(path.node)
        if path.endpoint != endpoint:
            self.mtus.forget(path.node)
            self._outbound.forget_flows()
        path.use(endpoint, self.mtus.present(path.node))

    # -- sessions ------------------------------------------------------------------------------

    def connect(self, node: NodeId, now: float) -> list[Effect]:
        """Start a handshake with `node` unless a session is up or one is under way."""
        path = self.path_to(node)
        if path is None or path.endpoint is None:
            return []
        self.addresses.begin(node, path.endpoint, now)
        return self.sessions.connect(node, path.endpoint, now)

    def renew(self, node: NodeId, now: float) -> list[Effect]:
        """Start a handshake although the session is up: the peer is silent, or has moved."""
        path = self.paths.get(node)
        if path is None or path.endpoint is None:
            return []
        self.addresses.begin(node, path.endpoint, now)
        return self.sessions.renew(node, path.endpoint, now)

    def _rotate(self, now: float) -> None:
        """The next repetition of a handshake goes to the peer's next address."""
        retry = self._settings.timing.handshake_retry
        for node, endpoint in self.addresses.rotate(self.sessions.is_connecting, retry, now):
            self.sessions.connect(node, endpoint, now)
            path = self.paths[node]
            if path.keypair is None:
                self._use(path, endpoint)

    def on_ways_changed(self, now: float) -> list[Effect]:
        """Other addresses may be used than before: leave those that may not, and come back."""
        effects: list[Effect] = []
        for node, path in list(self.paths.items()):
            if path.endpoint is not None and self.addresses.usable(path.endpoint):
                continue
            endpoint = self.addresses.after(node, None)
            if endpoint != path.endpoint:
                self._use(path, endpoint)
                effects += self.renew(node, now) or self.sessions.close(node, now, "no way to it")
        return effects

    def on_session_up(self, node: NodeId, endpoint: Endpoint, now: float) -> list[Effect]:
        """A keypair is ready: use it, and send what waited for it."""
        # It may be of a member whose record is still on its way.
        path = self.path_to(node) or self.paths.setdefault(node, PeerPath(node))
        first = path.keypair is None
        self.addresses.answer(node, endpoint)
        path.keypair = self.sessions.sending_keypair(node, now)
        if not first and path.endpoint is not None and path.endpoint != endpoint:
            self.takeovers.on_takeover(node, path.endpoint, endpoint, now)
        if first or path.endpoint != endpoint:
            self._use(path, endpoint)
        effects = self.trials.on_session(path, now)
        self._outbound.release(path, now)
        effects += self.mtus.on_packets(now)
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
        if (following := self.addresses.after(node, path.endpoint)) is not None:
            self._use(path, following)

    def on_moved(self, keypair: Keypair, source: Endpoint, now: float) -> list[Effect]:
        """An authentic burst came from a new address: answer there from now on."""
        path = self.paths.get(keypair.node) if keypair.node is not None else None
        if path is None or path.endpoint == source or not keypair.confirmed:
            return []
        if keypair is not self.sessions.current(path.node):
            # What is under an older one is late, or from a machine whose session another one with
            # the same identity has taken over: answers under the present keypair are not for it.
            return []
        was = path.endpoint
        self._use(path, source)
        # The next rekey goes there, too.
        renewed = self.sessions.connect(path.node, source, now)
        moved = Report(
            "peer.moved", {"peer": short_id(path.node), "endpoint": str(source), "was": str(was)}
        )
        tried = self.trials.on_session(path, now)
        return [moved, *renewed, *tried]

    # -- control messages ----------------------------------------------------------------------

    def on_message(
        self, node: NodeId, message: Message, whole: bool, now: float
    ) -> list[Effect] | None:
        """A member's message about the path; None when it is about something else.

        `whole`: all segments of its burst came in one read.
        """
        match message:
            case PathProbe():
                effects = self.send(node, encode(PathProbeReply(message.size)), now)
            case PathProbeReply():
                effects = self.mtus.on_reply(node, message, now)
            case SegmentLoss():
                effects = self.mtus.on_segment_loss(node, now)
            case Trial():
                effects = self.trials.on_trial(node, message, whole=whole)
            case TrialReply():
                effects = self.trials.on_trial_reply(node, message, now)
            case ReadSingly():
                effects = self.trials.on_read_singly(node, now)
            case _:
                return None
        return effects

    def send(self, node: NodeId, message: bytes, now: float, *, once: bool = False) -> list[Effect]:
        """Seal an encoded control message; without a session, start one and let it wait.

        With `once`, send one initiation for a new session in any case, and no more than that.
        """
        path = self.path_to(node)
        if path is None:
            return []
        path.used += not is_upkeep(message)
        if once and path.endpoint is not None:
            return self._call(path, path.endpoint, message, now)
        keypair = self.sessions.sending_keypair(node, now)
        if keypair is None or path.endpoint is None:
            waiting = self._waiting.setdefault(node, deque(maxlen=MAX_WAITING))
            waiting.append(message)
            return self.connect(node, now)
        return self._seal(path, keypair, path.endpoint, message)

    def _call(self, path: PeerPath, endpoint: Endpoint, message: bytes, now: float) -> list[Effect]:
        keypair = self.sessions.sending_keypair(path.node, now)
        if keypair is not None:
            called = self.sessions.renew(path.node, endpoint, now, once=True)
            return [*self._seal(path, keypair, endpoint, message), *called]
        self._waiting.setdefault(path.node, deque(maxlen=MAX_WAITING)).append(message)
        return self.sessions.renew(path.node, endpoint, now, once=True)

    def _seal(
        self, path: PeerPath, keypair: Keypair, endpoint: Endpoint, message: bytes
    ) -> list[Effect]:
        # In segments of the base size: what repairs the path must not depend on what it carries.
        sealed = self._outbound.seal_control(keypair, message, endpoint, BASE_PATH_MTU)
        path.tx_bytes += len(sealed.datagram)
        return [sealed]

    def keep_alive(self, path: PeerPath, now: float) -> list[Effect]:
        """An empty burst to a peer that a session is up with."""
        keypair = self.sessions.sending_keypair(path.node, now)
        if keypair is None or path.endpoint is None:
            return []
        sealed = self._outbound.seal_empty(keypair, path.endpoint, BASE_PATH_MTU)
        path.tx_bytes += len(sealed.datagram)
        return [sealed]

    def on_used(self, node: NodeId) -> None:
        """A message of a peer came that is not about the path."""
        path = self.paths.get(node)
        if path is not None:
            path.used += 1

    def drop_waiting(self) -> None:
        """Lose the messages that wait for sessions: what they say must not be said after all."""
        self._waiting.clear()

    def answer(self, keypair: Keypair, source: Endpoint, message: Message) -> list[Effect]:
        """Answer under the very keypair a message came with: joiners have no path."""
        return [self._outbound.seal_control(keypair, encode(message), source, BASE_PATH_MTU)]

    # -- time ----------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `on_deadline` has something to do next."""
        return earliest(
            self.mtus.next_deadline(),
            self.sessions.next_deadline(),
            self.trials.next_deadline(),
            self.takeovers.next_deadline(),
            self._losses.next_deadline(),
        )

    def on_deadline(self, now: float) -> list[Effect]:
        """Retries, rekeys and probes that are due."""
        effects: list[Effect] = []
        sessions_at = self.sessions.next_deadline()
        if sessions_at is not None and now >= sessions_at:
            self._rotate(now)
            effects += self.sessions.on_deadline(now)
        effects += self.trials.on_deadline(now)
        effects += self.takeovers.on_deadline(now)
        effects += self._losses.on_deadline(now)
        return effects + self.mtus.on_deadline(now)
