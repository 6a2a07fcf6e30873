"""All sessions of one node: where handshake datagrams arrive and deadlines come together.

    initiation      gate (`overlay.session.gate`) -> no copy, newer? -> half open, response
    response        do we wait for it? -> mac1    -> Noise -> current keypair, SessionUp
    cookie reply    do we wait for it?            -> its tag -> kept for the next initiation
    first burst under a half-open keypair         -> current keypair, SessionUp

A datagram that fails any of these has changed nothing, and gets no answer. But a stamp that is not
newer, or a removed node's, gets one without a session (`AnsweredError`): it may not know.

Even an authentic initiation changes neither where packets go nor what seals them: it may be old,
or caught and sent again from elsewhere. The first burst under the new keypair does (`on_opened`).
A response brings a keypair, but no address: the one that the initiation was sent to stays.

A joiner has no certificate; its token's secret is the pre-shared key of its handshake. Its keypair
belongs to no peer: it counts as half open even when confirmed, so that what strangers with a token
can hold stays bounded.

References:
    WireGuard paper (Donenfeld 2017), sections 5 and 6.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Container, Mapping
from typing import ClassVar

from overlay.agenda import Agenda, earliest
from overlay.config import Settings
from overlay.drops import DropReason
from overlay.effects import Effect, SendDatagram
from overlay.errors import AuthError, StateError, WireError
from overlay.session import timing as when
from overlay.session.cookie import MacMaker
from overlay.session.copies import Copies
from overlay.session.gate import Gate
from overlay.session.handshake import Admission, Received, answer
from overlay.session.index import IndexTable
from overlay.session.peer import LocalNode, PeerSession
from overlay.session.shown import SessionsSnapshot
from overlay.session.suites import offered_suites
from overlay.session.transport import Keypair
from overlay.session.voice import Voice
from overlay.types import Endpoint, Entropy, NodeId
from overlay.wall import Wall
from overlay.wire import header
from overlay.wire.certificate import Certificate, Identity
from overlay.wire.handed import INT, Handed, part
from overlay.wire.handshake import CookieReply, Initiation, Response


class Sessions:
    """The sessions of one node with all others.

    Error contract: `on_handshake_untrusted` changes no session when it raises. What is counted of
    initiations (`overlay.session.ratelimit`, `overlay.session.copies`) is in no snapshot.

    Args:
        identity, psk: our keys and certificate, and the cluster's pre-shared key, 32 bytes.
        boot: grows by one at every start of the node, 0 <= boot < 2**32.
        settings, wall: timing, limits, whether AES is preferred; and Unix time.
        entropy, rng: make keys, indexes and cookies; and jitter.
        token_secret: the secret of the join token with a given id, if it is still good.
        read_certificate: reads a certificate and checks that an authority we trust signed it.

    Attributes:
        keypairs: by local index, for the packet path. The same dictionary for ever.
        is_hopeless: whether an initiation, not yet decoded, can be dropped for want of turns.
        load: whether more initiations arrive than are answered unasked.
        cookies_sent: initiations that were answered with a cookie instead (UNDER_LOAD).
        voice: stamps of our initiations, and whether any may be sent.
        peers, table, due: for whoever hands sessions over (`overlay.session.heirs`).
    """

    HANDED: ClassVar = Handed(
        cookies_sent=INT,
        voice=part(Voice),
        _copies=part(Copies),
        _gate=part(Gate),
        table=part(IndexTable),
    )

    def __init__(
        self,
        *,
        identity: Identity,
        psk: bytes,
        boot: int,
        settings: Settings,
        wall: Wall,
        entropy: Entropy,
        rng: random.Random,
        token_secret: Callable[[bytes], bytes | None],
        read_certificate: Callable[[bytes], Certificate],
    ) -> None:
        table: IndexTable[PeerSession] = IndexTable(entropy, settings.limits.half_open)
        self.keypairs: Mapping[int, Keypair] = table.keypairs
        self.cookies_sent = 0
        self.voice = Voice(boot)
        self._local = LocalNode(
            identity=identity,
            psk=psk,
            timing=settings.timing,
            suites=offered_suites(prefer_aes=settings.prefer_aes),
            voice=self.voice,
            wall=wall,
            table=table,
            entropy=entropy,
            rng=rng,
        )
        self.table = table
        self._gate = Gate(
            identity=identity,
            psk=psk,
            settings=settings,
            wall=wall,
            entropy=entropy,
            token_secret=token_secret,
            read_certificate=read_certificate,
            live_stamp=lambda node: peer.stamp if (peer := self.peers.get(node)) else -1,
        )
        self.is_hopeless, self.load = self._gate.is_hopeless, self._gate.limit.meter
        self.peers: dict[NodeId, PeerSession] = {}
        self._copies = self._gate.copies
        self.due: Agenda[NodeId] = Agenda()

    # -- what the engine asks for ------------------------------------------------------------------

    def introduce(self, node: NodeId, static: bytes, not_after: float = math.inf) -> None:
        """Make `node` known with its static key, from a verified certificate. May be repeated.

        `not_after`: when the certificate expires, in Unix seconds; no handshake is started then.

        Raises:
            AuthError: the key is of low order; no handshake with it could succeed.
            StateError: `node` is this node. Nothing else.
        """
        if node == self._local.identity.node:
            raise StateError("a node has no session with itself")
        peer = self.peers.get(node)
        if peer is None or peer.static != static:
            self._local.identity.static.exchange(static)
        if peer is None:
            peer = self.add_peer(node, static)
        elif peer.static != static:
            peer.introduce(static)
        peer.valid_until = not_after

    def forget(self, node: NodeId, now: float) -> None:
        """Drop everything about `node`, silently."""
        self.lapse(node)
        self._copies.forget(node)

    def lapse(self, node: NodeId) -> None:
        """Drop all about `node` but how new its last initiation was: replays stay refused."""
        peer = self.peers.pop(node, None)
        if peer is None:
            return
        peer.clear()
        self.table.forget_lanes(node)
        self.due.set(node, None)
        if peer.stamp >= 0:
            self._copies.lapse(node, peer.stamp)

    def connect(self, node: NodeId, endpoint: Endpoint, now: float) -> list[Effect]:
        """Start a handshake with `node`, unless one runs or the session is up.

        The endpoint is remembered in any case: a running handshake is repeated there, and the
        next rekey goes there. Call it too when an authentic burst came from a new address.

        Raises:
            StateError: `node` was not introduced. Nothing else.
        """
        peer = self._known(node)
        peer.endpoint = endpoint
        up = self.sending_keypair(node, now) is not None
        return [] if up else self._changed(peer, peer.start(now))

    def renew(
        self, node: NodeId, endpoint: Endpoint, now: float, *, once: bool = False
    ) -> list[Effect]:
        """Start a handshake though the session is up; `once`: not repeated. Raises as `connect`."""
        peer = self._known(node)
        peer.endpoint = endpoint
        return self._changed(peer, peer.start(now, once=once))

    def ask_at(self, node: NodeId, endpoint: Endpoint, now: float) -> list[Effect]:
        """As `renew`, but only the first initiation goes to `endpoint`; repetitions as ever."""
        present = (peer := self._known(node)).endpoint
        effects = self.renew(node, endpoint, now)
        peer.endpoint = present
        return effects

    def close(self, node: NodeId, now: float, why: str = "the peer said goodbye") -> list[Effect]:
        """`node` said goodbye: its keys are gone, so ours are of no use. Or we keep quiet."""
        return self._changed(peer, peer.close(why)) if (peer := self.peers.get(node)) else []

    def sending_keypair(self, node: NodeId, now: float) -> Keypair | None:
        """The keypair that seals bursts to `node`; None if there is no usable one."""
        current = self.current(node)
        return current if current is not None and current.usable(now) else None

    def is_connecting(self, node: NodeId) -> bool:
        """Whether a handshake of ours with `node` waits for its response."""
        peer = self.peers.get(node)
        return peer is not None and peer.connecting

    def established_at(self, node: NodeId) -> float | None:
        """When the session with `node` came up; None while there is none."""
        peer = self.peers.get(node)
        return peer.established_at if peer is not None else None

    def rekeyed_at(self, node: NodeId) -> float | None:
        """When the current keypair with `node` was made; None without one."""
        current = self.current(node)
        return current.created_at if current is not None else None

    def held(self, node: NodeId) -> list[Keypair]:
        """All keypairs with `node`, the one that seals last."""
        peer = self.peers.get(node)
        previous, current, following = peer.keyring.held() if peer else (None, None, None)
        return [one for one in (previous, following, current) if one is not None]

    def current(self, node: NodeId) -> Keypair | None:
        """The keypair that seals for `node`, used up or not; None without a session."""
        peer = self.peers.get(node)
        return peer.keyring.current if peer is not None else None

    def set_lanes(self, node: NodeId, lanes: int) -> None:
        """`node` sends from `lanes` lanes, 1 to 16: open what any of them seals for our lane 0."""
        self.table.set_lanes(node, lanes, self.held(node))

    @property
    def is_changed(self) -> bool:
        """Whether `take_changed` would return any."""
        return bool(self.table.changed)

    def take_changed(self) -> set[NodeId]:
        """Nodes of which a keypair came, was confirmed or went since the last call."""
        changed, self.table.changed = self.table.changed, set()
        return changed

    def observed_endpoint(self, node: NodeId) -> Endpoint | None:
        """Our own address as `node` saw it when it last answered a handshake of ours."""
        peer = self.peers.get(node)
        return peer.observed if peer is not None else None

    def add_peer(self, node: NodeId, static: bytes) -> PeerSession:
        """A session, or the lack of one, with a node that is not known yet."""
        peer = self.peers[node] = PeerSession(self._local, node, static)
        peer.stamp = self._copies.forget(node)
        return peer

    def _known(self, node: NodeId) -> PeerSession:
        peer = self.peers.get(node)
        if peer is None:
            raise StateError("connect to a node that was not introduced")
        return peer

    # -- datagrams ---------------------------------------------------------------------------------

    def on_handshake_untrusted(self, datagram: bytes, source: Endpoint, now: float) -> list[Effect]:
        """An initiation, a response or a cookie reply.

        Raises:
            AuthError: it does not prove what it must; `reason` says what it counts as.
            WireError: it does not parse, or is none of the three. Nothing else.
        """
        match datagram[0] if datagram else None:  # whoever is asked decodes the rest
            case header.TYPE_INITIATION:
                return self._on_initiation_untrusted(datagram, source, now)
            case header.TYPE_RESPONSE:
                return self._on_response_untrusted(datagram, now)
            case header.TYPE_COOKIE_REPLY:
                return self._on_cookie_untrusted(datagram, now)
            case other:
                raise WireError(f"type {other} is no handshake message")

    def _on_initiation_untrusted(
        self, datagram: bytes, source: Endpoint, now: float
    ) -> list[Effect]:
        reply = self._gate.check_initiation_untrusted(datagram, source, now)
        if reply is not None:
            self.cookies_sent += 1
            return [SendDatagram(source, reply, at_once=True)]
        message = Initiation.decode_untrusted(datagram)
        received, admission = self._gate.admit_untrusted(message, source, now)
        return self._answer(received, admission, source, now)

    def _answer(
        self, received: Received, admission: Admission, source: Endpoint, now: float
    ) -> list[Effect]:
        response, keypair = answer(
            received,
            admission,
            index=self.table.draw(),
            observed=source,
            entropy=self._local.entropy,
            now=now,
            expires_at=when.expires_at(now, self._local.timing),
        )
        pushed_out = self.table.add_half_open(keypair)
        if pushed_out is not None:
            self._drop_half_open(pushed_out)
        if admission.node is not None:
            if admission.node not in self.peers:
                self.add_peer(admission.node, received.remote_static)
            peer = self.peers[admission.node]
            peer.accept(keypair, admission.stamp)
            self._changed(peer, [])
        datagram = MacMaker(received.remote_static).with_macs(response, now)
        return [SendDatagram(source, datagram, at_once=True)]

    def _on_response_untrusted(self, datagram: bytes, now: float) -> list[Effect]:
        index = header.Header.decode_untrusted(datagram).receiver
        peer = self._waiting(index)
        self._gate.check_response_untrusted(datagram, index, now)
        effects = peer.on_response_untrusted(Response.decode_untrusted(datagram), now)
        if peer.endpoint is not None:  # where it was asked, which is not where this came from
            self._gate.limit.remember(peer.node, peer.endpoint.host)
        return self._changed(peer, effects)

    def _on_cookie_untrusted(self, datagram: bytes, now: float) -> list[Effect]:
        reply = CookieReply.decode_untrusted(datagram)
        return self._waiting(reply.receiver).on_cookie_untrusted(reply, now)

    def _waiting(self, index: int) -> PeerSession:
        peer = self.table.pending.get(index)
        if peer is None:
            raise AuthError("an answer to nothing we sent", DropReason.UNKNOWN_INDEX)
        return peer

    def on_opened(self, keypair: Keypair, source: Endpoint, now: float) -> list[Effect]:
        """A burst under `keypair` has authenticated, and `keypair.confirmed` is false."""
        if keypair.node is None:
            keypair.confirmed = True
            return []
        self._gate.limit.remember(keypair.node, source.host)
        peer = self.peers.get(keypair.node)
        return self._changed(peer, peer.on_opened(keypair, source, now)) if peer else []

    # -- time --------------------------------------------------------------------------------------

    def on_look(self, kept: Container[NodeId], now: float) -> list[Effect]:
        """Once a second: a load may have begun or ended; who never came, nor is `kept`, lapses."""
        for node in [one for one, peer in self.peers.items() if peer.is_idle and one not in kept]:
            self.lapse(node)
        return self._gate.on_look(now)

    def next_deadline(self) -> float | None:
        """When `on_deadline` wants to be called; None if nothing is due ever."""
        oldest = self.table.oldest_half_open()
        return earliest(self.due.next_deadline(), oldest.expires_at if oldest else None)

    def on_deadline(self, now: float) -> list[Effect]:
        """Repeat, replace, expire and give up what is due at `now`; nothing if called early."""
        while (oldest := self.table.oldest_half_open()) is not None and now >= oldest.expires_at:
            self._drop_half_open(oldest)
        effects: list[Effect] = []
        for node in self.due.take_due(now):
            peer = self.peers[node]
            effects += self._changed(peer, peer.on_deadline(now))
        return effects

    def _drop_half_open(self, keypair: Keypair) -> None:
        peer = self.peers.get(keypair.node) if keypair.node is not None else None
        if peer is not None:
            peer.keyring.drop_next(keypair)
        self.table.release(keypair.local_index)

    def _changed(self, peer: PeerSession, effects: list[Effect]) -> list[Effect]:
        self.due.set(peer.node, peer.next_deadline())
        return effects

    def snapshot(self) -> SessionsSnapshot:
        """All state, comparable with `==`."""
        return SessionsSnapshot(
            peers=tuple(peer.snapshot() for peer in self.peers.values()),
            indexes=self.table.snapshot(),
            joiners=tuple(
                (keypair.local_index, keypair.joiner_token, keypair.confirmed)
                for keypair in self.table.half_open()
                if keypair.joiner_token is not None
            ),
            next_deadline=self.next_deadline(),
        )

    def check_invariants(self) -> None:
        """Raise `AssertionError` if peers and index table contradict each other."""
        self.table.check_invariants()
        due = [peer.next_deadline() for peer in self.peers.values()]
        assert self.due.next_deadline() == min((at for at in due if at is not None), default=None)
        for peer in self.peers.values():
            peer.check_invariants()
