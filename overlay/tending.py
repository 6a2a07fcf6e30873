"""Looks after the sessions that are there: ends idle ones, renews silent ones, answers with life.

    packets or messages, last seen      less than `idle_after` ago    the session stays
                                        longer ago                    Goodbye, and all is forgotten
    sent, and nothing came back for     `silent_after`                a new handshake
    received, and nothing sent for      `ALIVE_AFTER`                 an empty burst
    `REKEY_COUNTER` bursts under the keypair                          a new handshake
    a record of a later boot                                          a new handshake

A node has sessions only with those it has something to say to. They are made when something is to
be sent (`overlay.peering`) and end here, so that what a node keeps grows with its conversations and
not with its cluster, and sessions nobody uses are not rekeyed.

A peer that restarted has no keys: what it is sent under the old session vanishes. It calls whom it
is sure to have had sessions with (`Knowledge.to_greet`); to all others its new record says so, as a
rule within a fraction of a second. Where that does not come either it is noticed by silence, but
only where an answer was due. A receiver that has nothing to say therefore sends an empty burst now
and then; without it a flow in one direction would look like a dead peer.

References:
    WireGuard paper (Donenfeld 2017), sections 6.5 (passive keepalive) and 6.6. Differs from it:
    looks at all sessions once a second instead of a timer for each, and acts sooner than after
    10 s and 15 s, because pods shall not wait for that long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final

from overlay.config import Timing
from overlay.effects import Effect
from overlay.forwarding.path import PeerPath
from overlay.peering import Peering
from overlay.session.voice import BOOT_SHIFT
from overlay.types import NodeId
from overlay.wire.handed import BYTES, INT, SECONDS, Handed, fresh, maybe, table

ALIVE_AFTER: Final = 2.0
"""Seconds of silence of our own after which a peer that sends is shown that we live."""


YOUNG: Final = 3.0
"""Seconds of age below which a keypair may be one with the new process of a peer that is said to
have restarted: when many restart at once, most are. Then silence tells."""

DOUBTED: Final = 1.0
"""Seconds of silence that are enough of a peer whose keypair is young and who has restarted."""


class _Seen:
    """What the looks at one path have found so far. Times are those of looks."""

    __slots__ = (
        "active_at",
        "answered",
        "heard_at",
        "owed_since",
        "sent",
        "unanswered_since",
        "used",
    )

    HANDED: ClassVar = Handed(
        **dict.fromkeys(("used", "sent", "answered"), INT),
        active_at=SECONDS,
        **dict.fromkeys(("heard_at", "unanswered_since", "owed_since"), maybe(SECONDS)),
    )

    def __init__(self, path: PeerPath, now: float) -> None:
        self.used = path.used
        self.active_at = now
        self.heard_at = path.heard_at
        self.sent = self.answered = _sent(path)
        self.unanswered_since: float | None = None
        self.owed_since: float | None = None


def _new() -> _Seen:
    return _Seen(PeerPath(NodeId(b"")), 0.0)


class Tending:
    """Looks at the sessions of one node, about once a second.

    Args:
        peering: the sessions and paths.
        timing: `idle_after` and `silent_after`.
        is_dead: whether a node is believed dead. Gossip calls those now and then; a handshake that
            is repeated for minutes would be too much for who does not answer.
    """

    HANDED: ClassVar = Handed(_seen=table(BYTES, fresh(_Seen, _new)))

    def __init__(self, peering: Peering, timing: Timing, is_dead: Callable[[NodeId], bool]) -> None:
        self._peering = peering
        self._timing = timing
        self._is_dead = is_dead
        self._seen: dict[NodeId, _Seen] = {}

    def on_look(self, now: float) -> list[Effect]:
        """Look at every path there is; do what is due."""
        effects: list[Effect] = []
        paths = self._peering.paths
        for node, path in list(paths.items()):
            seen = self._seen.get(node)
            if seen is None:
                self._seen[node] = _Seen(path, now)
                continue
            effects += self._look(node, path, seen, now)
        if len(self._seen) > len(paths):
            self._seen = {node: seen for node, seen in self._seen.items() if node in paths}
        return effects

    def on_restart(self, node: NodeId, boot: int, now: float) -> list[Effect]:
        """A peer's record says that it has started again: it has no keys from before."""
        path = self._peering.paths.get(node)
        keypair = None if path is None else path.keypair
        if path is None or keypair is None:
            return []
        if self._peering.sessions.peers[node].stamp >> BOOT_SHIFT >= boot:
            return []  # it has shaken hands since: that session is up, or coming up
        if now - keypair.created_at >= YOUNG:
            return self._peering.renew(node, now)
        seen = self._seen.setdefault(node, _Seen(path, now))
        seen.heard_at = path.heard_at
        seen.unanswered_since = now - self._timing.silent_after + DOUBTED
        return []

    def _look(self, node: NodeId, path: PeerPath, seen: _Seen, now: float) -> list[Effect]:
        if path.used != seen.used:
            seen.active_at = now
        elif now - seen.active_at >= self._timing.idle_after and self._peering.is_quiet(node):
            return self._peering.lapse(node, now)
        effects = [] if path.keypair is None else self._show_life(path, seen, now)
        silent = self._is_silent(path, seen, now)
        worn = path.keypair is not None and path.keypair.worn
        if (silent or worn) and not self._is_dead(node):
            effects += self._peering.renew(node, now)
        seen.used, seen.sent, seen.heard_at = path.used, _sent(path), path.heard_at
        return effects

    def _show_life(self, path: PeerPath, seen: _Seen, now: float) -> list[Effect]:
        """An empty burst is no use of the path, so it is not answered by another one."""
        if _sent(path) != seen.sent:
            seen.owed_since = None
        elif path.used != seen.used:  # and nothing was sent: it came from there
            seen.owed_since = now if seen.owed_since is None else seen.owed_since
        if seen.owed_since is None or now - seen.owed_since < ALIVE_AFTER:
            return []
        seen.owed_since = None
        return self._peering.keep_alive(path, now)

    def _is_silent(self, path: PeerPath, seen: _Seen, now: float) -> bool:
        if path.keypair is None or path.heard_at != seen.heard_at:
            seen.answered, seen.unanswered_since = _sent(path), None
        elif _sent(path) != seen.answered and seen.unanswered_since is None:
            seen.unanswered_since = now
        if seen.unanswered_since is None or now - seen.unanswered_since < self._timing.silent_after:
            return False
        seen.unanswered_since = now
        return True


def _sent(path: PeerPath) -> int:
    return path.tx_bytes + path.tx_elsewhere
