"""The session with one remote node: starting, repeating, replacing and ending handshakes.

                      start                       response
         (nothing) ----------> connecting ---------------------> up <----+
             ^                  |  ^   |                         |  |    | response, or first
             |          give up |  +---+ retry: 1, 1, 1, 2, 4 s  |  +----+ burst under `next`
             +------------------+                                |
             +---------------------------------------------------+
                 keys expired with no handshake running, or closed

While it is up, a handshake may run beside it (the rekey); the old keypair seals until the new one
is current. The way from nothing to up may also be the responder's: an initiation of the remote
node is answered, and its first burst confirms the keypair. Which keypair is used for what is the
subject of `overlay.session.keyring`; when things happen, of `overlay.session.timing`.

References:
    WireGuard paper (Donenfeld 2017), sections 5.1 (the stamp) and 6.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import ClassVar

from overlay.config import Timing
from overlay.effects import (
    Effect,
    RemovalShown,
    Report,
    SendDatagram,
    SessionDown,
    SessionUp,
    StampRefused,
)
from overlay.session import timing as when
from overlay.session.cookie import MacMaker
from overlay.session.handshake import Attempt
from overlay.session.index import IndexTable
from overlay.session.keyring import Keyring
from overlay.session.shown import PeerSnapshot
from overlay.session.suites import suite_name
from overlay.session.transport import Keypair
from overlay.session.voice import Voice
from overlay.types import Endpoint, Entropy, NodeId, short_id
from overlay.wall import Wall
from overlay.wire.certificate import Identity
from overlay.wire.handed import ENDPOINT, INT, SECONDS, Handed, maybe, part
from overlay.wire.handshake import CookieReply, MemberHello, Response, RevokedPayload, StalePayload


@dataclass(frozen=True, slots=True)
class LocalNode:
    """What all peers of a node share: who we are, and where indexes and randomness come from."""

    identity: Identity
    psk: bytes = field(repr=False)
    timing: Timing
    suites: tuple[int, ...]
    """Offered in initiations, best first."""
    voice: Voice
    """Stamps, and whether a handshake may be started at all."""
    wall: Wall
    table: IndexTable[PeerSession]
    entropy: Entropy
    rng: random.Random


class PeerSession:
    """The session with one remote node, or the attempt to have one.

    Error contract: a method that raises has changed nothing.

    Args:
        local: what all peers share.
        node: whom this is about.
        static: its X25519 public key.

    Attributes:
        static: as given, or as introduced later.
        keyring: the keypairs.
        endpoint: where initiations are sent.
        observed: our own address as this node saw it when it last answered a handshake.
        stamp: the highest stamp seen in an initiation of this node; -1 before the first.
        above: the highest stamp that we have sent it, or that it says to have seen of ours.
        valid_until: when its certificate expires, in Unix seconds. A responder does not show one
            in a handshake, so whoever starts it must know.
        established_at: when the session came up; None while there is none.
    """

    __slots__ = (
        "_asked",
        "_attempt",
        "_give_up_at",
        "_local",
        "_macs",
        "_outdone",
        "_rekey_at",
        "_retry_at",
        "_sent_before",
        "_tries",
        "above",
        "endpoint",
        "established_at",
        "keyring",
        "node",
        "observed",
        "stamp",
        "static",
        "valid_until",
    )

    HANDED: ClassVar = Handed(
        **dict.fromkeys(("endpoint", "observed"), maybe(ENDPOINT)),
        **dict.fromkeys(("stamp", "above"), INT),
        valid_until=SECONDS,
        **dict.fromkeys(("established_at", "_rekey_at"), maybe(SECONDS)),
        _sent_before=maybe(INT),
        keyring=part(Keyring),
    )

    def __init__(self, local: LocalNode, node: NodeId, static: bytes) -> None:
        self.node = node
        self.static = static
        self.keyring = Keyring(local.table, wins_ties=local.identity.node < node)
        self.endpoint: Endpoint | None = None
        self.observed: Endpoint | None = None
        self.stamp = -1
        self.above = -1
        self.valid_until = math.inf
        self.established_at: float | None = None
        self._local = local
        self._macs = MacMaker(static)
        self._attempt: Attempt | None = None
        self._asked: Endpoint | None = None  # where its initiation went
        self._tries = 0
        self._outdone = False  # whether the node refused a stamp in this handshake
        self._retry_at = 0.0
        self._give_up_at = 0.0
        self._rekey_at: float | None = None
        self._sent_before: int | None = None

    @property
    def connecting(self) -> bool:
        """Whether an initiation of ours waits for its response."""
        return self._attempt is not None

    @property
    def is_idle(self) -> bool:
        """Whether there is no keypair, and no handshake of ours runs."""
        return self._attempt is None and not any(self.keyring.held())

    def introduce(self, static: bytes) -> None:
        """The node has a new static key; the next initiation uses it."""
        self.static = static
        self._macs = MacMaker(static)

    # -- as the initiator --------------------------------------------------------------------------

    def start(self, now: float, *, once: bool = False) -> list[Effect]:
        """Begin a handshake now, unless one is running. `endpoint` must be known.

        With `once`, it ends when the first initiation stays unanswered.
        """
        if self._attempt is not None:
            return []
        if not self._local.voice.may_start(self.node):
            self._rekey_at = None
            return []
        current = self.keyring.current
        if self._local.wall.at(now) >= self.valid_until:
            self._rekey_at = None
            return self._end("its certificate has expired") if current is None else []
        session_until = current.expires_at if current is not None else None
        self._give_up_at = when.give_up_at(now, session_until, self._local.timing)
        if once:
            self._give_up_at = now + self._local.timing.handshake_retry
        else:
            self._rekey_at = None
        self._tries = 0
        self._outdone = False
        return self._send_initiation(now)

    def _send_initiation(self, now: float) -> list[Effect]:
        local, endpoint = self._local, self.endpoint
        assert endpoint is not None, "nobody starts a handshake without an endpoint"
        self._cancel_attempt()
        self.above = stamp = local.voice.stamp(self.above)
        certificate = local.identity.certificate.encode()
        attempt = Attempt(
            static=local.identity.static,
            remote_static=self.static,
            psk=local.psk,
            hello=MemberHello(stamp, certificate, local.suites),
            index=local.table.draw(),
            entropy=local.entropy,
        )
        local.table.pending[attempt.index] = self
        self._attempt = attempt
        self._asked = endpoint
        self._tries += 1
        self._retry_at = now + when.retry_delay(self._tries, local.rng.random(), local.timing)
        datagram = self._macs.with_macs(attempt.datagram, now)
        # A stamp is only as good as the boot counter below it, which may not be stored yet.
        return [SendDatagram(endpoint, datagram, at_once=not local.voice.raised)]

    def on_response_untrusted(self, response: Response, now: float) -> list[Effect]:
        """The response to our last initiation; its receiver index was looked up.

        The session comes up where the initiation was sent, for that is where it has arrived.
        Where the response came from shows nothing: it may have been caught, and sent from there.

        Raises:
            AuthError: it does not verify.
            WireError: what is in it does not parse. Nothing else.
        """
        assert self._attempt is not None, "the index of an attempt ends with it"
        assert self._asked is not None, "it was sent somewhere"
        finished = self._attempt.finish_untrusted(
            response,
            node=self.node,
            now=now,
            expires_at=when.expires_at(now, self._local.timing),
        )
        if isinstance(finished, StalePayload):
            return self._on_stale(finished.stamp, now)
        if isinstance(finished, RevokedPayload):
            return [RemovalShown(self.node, finished.proof)]  # if it is not true, we try on
        self._cancel_attempt()
        keypair, self.observed = finished
        self.keyring.complete(keypair, now)
        return self._on_new_current(keypair, self._asked, now)

    def _on_stale(self, stamp: int, now: float) -> list[Effect]:
        """The node has seen a greater stamp of ours than we sent: try again above it, at once.

        Only once in a handshake, then when it is repeated anyway: a liar would have us shake hands
        as fast as the network carries it. A datagram that was duplicated on its way brings this
        about, too, with a stamp that we did send: then the right response is under way.
        """
        if stamp <= self.above:
            return []
        self.above = stamp
        again = [] if self._outdone else self._send_initiation(now)
        self._outdone = True
        return [StampRefused(self.node), *again]

    def on_cookie_untrusted(self, reply: CookieReply, now: float) -> list[Effect]:
        """A cookie for our next initiation, which goes out when it was due anyway.

        Raises:
            AuthError: it does not answer our last initiation. Nothing else.
        """
        self._macs.read_cookie_untrusted(reply, now)
        return []

    def _cancel_attempt(self) -> None:
        if self._attempt is not None:
            self._local.table.release(self._attempt.index)
            self._attempt = None

    # -- as the responder --------------------------------------------------------------------------

    def accept(self, keypair: Keypair, stamp: int) -> None:
        """An initiation of the node was answered; `keypair` waits to be confirmed."""
        self.stamp = stamp
        self.keyring.accept(keypair)

    def on_opened(self, keypair: Keypair, source: Endpoint, now: float) -> list[Effect]:
        """A burst under `keypair`, which was not confirmed, has authenticated."""
        if not self.keyring.confirm(keypair, now):
            return []
        self._cancel_attempt()
        return self._on_new_current(keypair, source, now)

    # -- up and down -------------------------------------------------------------------------------

    def _on_new_current(self, keypair: Keypair, endpoint: Endpoint, now: float) -> list[Effect]:
        self.endpoint = endpoint
        self._rekey_at = when.rekey_at(keypair.created_at, self._local.timing)
        self._sent_before = None
        effects: list[Effect] = [SessionUp(self.node, endpoint)]
        if self.established_at is None:
            self.established_at = now
            fields = {
                "peer": short_id(self.node),
                "endpoint": str(endpoint),
                "cipher": suite_name(keypair.suite),
            }
            effects.append(Report("session.established", fields))
        return effects

    def close(self, why: str) -> list[Effect]:
        """Forget all keys and stop trying."""
        was_something = self.established_at is not None or self.connecting
        self.clear()
        return self._end(why) if was_something else []

    def clear(self) -> None:
        """Drop every keypair and the running handshake; say nothing."""
        self._cancel_attempt()
        self.keyring.clear()
        self._rekey_at = None

    def _end(self, why: str) -> list[Effect]:
        effects: list[Effect] = [SessionDown(self.node, why)]
        if self.established_at is not None:
            effects.append(Report("session.ended", {"peer": short_id(self.node), "why": why}))
        self.established_at = None
        return effects

    # -- time --------------------------------------------------------------------------------------

    def deadlines(self) -> tuple[float | None, ...]:
        """When what is due: previous or current expires, rekey, retry, give up, one has left."""
        previous, current, _ = self.keyring.held()
        leaving = self.keyring.leaving
        trying = self._attempt is not None
        return (
            previous.expires_at if previous is not None else None,
            current.expires_at if current is not None else None,
            None if trying else self._rekey_at,
            self._retry_at if trying else None,
            self._give_up_at if trying else None,
            leaving[0][1] if leaving else None,
        )

    def next_deadline(self) -> float | None:
        """The earliest of `deadlines`."""
        return min((at for at in self.deadlines() if at is not None), default=None)

    def on_deadline(self, now: float) -> list[Effect]:
        """Do what is due; nothing if called early."""
        self.keyring.expire(now)
        current = self.keyring.current
        if current is None:
            self._rekey_at = None
        if self._attempt is not None:
            return self._on_attempt_due(now)
        if current is None:
            return self._end("the keys expired") if self.established_at is not None else []
        if self._rekey_at is not None and now >= self._rekey_at:
            return self._on_rekey_due(current, now)
        return []

    def _on_attempt_due(self, now: float) -> list[Effect]:
        if now >= self._give_up_at:
            # But for calls, a handshake outlives the keypair it replaces: nothing usable is left.
            self._cancel_attempt()
            return [] if self.keyring.current else self._end("no answer to the handshake")
        return self._send_initiation(now) if now >= self._retry_at else []

    def _on_rekey_due(self, current: Keypair, now: float) -> list[Effect]:
        if current.initiator:
            return self.start(now)
        if self._sent_before is None:
            # The initiator should act now. Note what we have sent so far: if that has grown by
            # the time of the fallback, the session is in use and must not end.
            self._sent_before = current.counter
            self._rekey_at = when.fallback_rekey_at(current.created_at, self._local.timing)
            return []
        self._rekey_at = None
        return self.start(now) if current.counter > self._sent_before else []

    def snapshot(self) -> PeerSnapshot:
        """All state, comparable with `==`."""
        return PeerSnapshot(
            node=self.node,
            static=self.static,
            valid_until=self.valid_until,
            endpoint=self.endpoint,
            observed=self.observed,
            stamp=self.stamp,
            keypairs=tuple(
                (keypair.local_index, keypair.confirmed, keypair.counter) if keypair else None
                for keypair in self.keyring.all()
            ),
            attempt=self._attempt.index if self._attempt is not None else None,
            tries=self._tries,
            cookie_until=self._macs.cookie_until,
            established_at=self.established_at,
            deadlines=self.deadlines(),
        )

    def check_invariants(self) -> None:
        """Raise `AssertionError` if keypairs, index table and state contradict each other."""
        held = [keypair for keypair in self.keyring.all() if keypair is not None]
        assert all(self._local.table.keypairs[keypair.local_index] is keypair for keypair in held)
        assert len({keypair.local_index for keypair in held}) == len(held)
        current = self.keyring.current
        assert current is None or (current.confirmed and self.established_at is not None)
