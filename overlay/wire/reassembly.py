"""Putting bursts together whose segments did not arrive in one buffer.

Most bursts do (UDP_GRO); this table takes the others: receivers without GRO, reordering, a burst
that the kernel delivered in two reads. It holds unauthenticated bytes, so it is bounded four
ways: per burst, per session, in all, and in time. Whoever sees a receiver index can send segments
for it, so whoever fills the table pushes out what is its own:

    a full session    the oldest burst of the source address that has the most in it
    a full table      the same, in the session that has the most

Segments from different addresses are never put together: nobody spoils a burst of others without
forging their address. A sender does not change its address within a burst.

    (receiver index and lanes, source, counter) -> [segment 0, None, segment 2, ...], missing 1,
                                                   expires at

References:
    RFC 8900, section 3.5: why reassembly buffers must be bounded and short-lived.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from overlay.drops import DropReason
from overlay.types import Endpoint
from overlay.wire.burst import MAX_CIPHERTEXT
from overlay.wire.handed import (
    BYTES,
    ENDPOINT,
    INT,
    SECONDS,
    Handed,
    Values,
    fresh,
    many,
    maybe,
    row,
    table,
)
from overlay.wire.header import Header


class Taken(NamedTuple):
    """What became of one segment.

    Attributes:
        ciphertext: the whole ciphertext, when this segment completed its burst.
        segments: how many segments that burst had.
        drop: why the segment was refused, else None.
        evicted: segments of older bursts that had to make room.
    """

    ciphertext: bytes | None = None
    segments: int = 0
    drop: DropReason | None = None
    evicted: int = 0


class _Partial:
    """One incomplete burst."""

    __slots__ = ("expires_at", "missing", "pieces", "size")

    HANDED: ClassVar = Handed(expires_at=SECONDS, missing=INT, size=INT, pieces=many(maybe(BYTES)))

    def __init__(self, count: int, expires_at: float) -> None:
        self.pieces: list[bytes | None] = [None] * count
        self.missing = count
        self.size = 0
        self.expires_at = expires_at

    @property
    def held(self) -> int:
        return len(self.pieces) - self.missing


def _new() -> _Partial:
    return _Partial(0, 0.0)


_Key = tuple[int, Endpoint | None, int]
"""Of one burst: receiver index and lanes, source, counter."""


def _key(session: int, source: Endpoint | None, counter: int) -> _Key:
    return session, source, counter


class Reassembly:
    """The bounded table of incomplete bursts.

    Args:
        per_session: incomplete bursts remembered per receiver index and pair of lanes.
        total: incomplete bursts remembered in all.
        expires_after: seconds an incomplete burst is kept.
    """

    HANDED: ClassVar = Handed(
        _bursts=table(row(_key, INT, maybe(ENDPOINT), INT), fresh(_Partial, _new)),
        _incomplete=table(INT, INT),
    )

    def __init__(self, *, per_session: int, total: int, expires_after: float) -> None:
        self._per_session = per_session
        self._total = total
        self._expires_after = expires_after
        # Insertion order is age, because every burst has the same life.
        self._bursts: dict[_Key, _Partial] = {}
        self._counts: dict[int, int] = {}
        # By session and source, oldest first: who fills the table must not make us search it.
        self._places: dict[int, dict[Endpoint | None, dict[int, None]]] = {}
        self.held = 0
        """Segments waiting now."""
        self._incomplete: dict[int, int] = {}

    def inherit(self, values: Values) -> None:
        """Go on with the bursts that another process of this node has begun to gather."""
        self.HANDED.put(self, values)
        for session, source, counter in self._bursts:
            self._count(session, source, counter)
        self.held = sum(partial.held for partial in self._bursts.values())

    def take(self, header: Header, piece: memoryview, source: Endpoint | None, now: float) -> Taken:
        """Add one segment of a burst with more than one.

        Args:
            header: its decoded header; `index <= last < MAX_SEGMENTS` was checked.
            piece: its ciphertext, copied here; at most what one datagram holds.
            source: where it seems to come from; None where it does not matter.
            now: monotonic seconds.

        Returns:
            BAD_HEADER as the drop reason when the segment contradicts those that are there: another
            `last`, or more bytes than any burst has.
        """
        # Each pair of lanes counts by itself.
        session = header.receiver | header.lane << 32
        key = (session, source, header.counter)
        partial = self._bursts.get(key)
        evicted = 0
        if partial is None:
            evicted = self._make_room(session)
            partial = _Partial(header.last + 1, now + self._expires_after)
            self._bursts[key] = partial
            self._count(session, source, header.counter)
        elif len(partial.pieces) != header.last + 1:
            return Taken(drop=DropReason.BAD_HEADER)
        elif partial.pieces[header.index] is not None:
            return Taken(drop=DropReason.DUPLICATE_SEGMENT)
        elif partial.size + len(piece) > MAX_CIPHERTEXT:
            return Taken(drop=DropReason.BAD_HEADER)
        partial.pieces[header.index] = bytes(piece)
        partial.missing -= 1
        partial.size += len(piece)
        self.held += 1
        if partial.missing:
            return Taken(evicted=evicted)
        self._remove(key)
        pieces = [piece for piece in partial.pieces if piece is not None]
        return Taken(b"".join(pieces), len(pieces), evicted=evicted)

    def _count(self, session: int, source: Endpoint | None, counter: int) -> None:
        self._counts[session] = self._counts.get(session, 0) + 1
        places = self._places.setdefault(session, {})
        places.setdefault(source, {})[counter] = None

    def _make_room(self, session: int) -> int:
        if self._counts.get(session, 0) < self._per_session:
            if len(self._bursts) < self._total:
                return 0
            session = max(self._counts, key=self._counts.__getitem__)
        places = self._places[session]
        fullest = max(places, key=lambda source: len(places[source]))
        return self._remove((session, fullest, next(iter(places[fullest]))))

    def _remove(self, key: _Key) -> int:
        partial = self._bursts.pop(key)
        session, source, counter = key
        places = self._places[session]
        del places[source][counter]
        if not places[source]:
            del places[source]
        self._counts[session] -= 1
        if not self._counts[session]:
            del self._counts[session], self._places[session]
        self.held -= partial.held
        if partial.missing:
            self._incomplete[session] = self._incomplete.get(session, 0) + 1
        return partial.held

    def take_incomplete(self) -> dict[int, int]:
        """Bursts given up since the last call, by receiver index | lanes << 32.

        Their sender may want to know.
        """
        taken, self._incomplete = self._incomplete, {}
        return taken

    def expire(self, now: float) -> int:
        """Forget bursts whose time is over; returns how many segments were lost with them."""
        lost = 0
        while self._bursts:
            key, partial = next(iter(self._bursts.items()))
            if partial.expires_at > now:
                break
            lost += self._remove(key)
        return lost

    def next_deadline(self) -> float | None:
        """When `expire` has something to do next."""
        partial = next(iter(self._bursts.values()), None)
        return None if partial is None else partial.expires_at

    def check_invariants(self) -> None:
        """Assert what must always hold; called by tests after each step."""
        assert self.held == sum(partial.held for partial in self._bursts.values())
        placed = [
            (session, source, counter)
            for session, sources in self._places.items()
            for source, counters in sources.items()
            for counter in counters
        ]
        assert set(placed) == self._bursts.keys()
        assert sum(self._counts.values()) == len(self._bursts) <= self._total
        assert all(0 < count <= self._per_session for count in self._counts.values())
        for partial in self._bursts.values():
            assert partial.missing
            held = [piece for piece in partial.pieces if piece is not None]
            assert partial.size == sum(map(len, held)) <= MAX_CIPHERTEXT
            assert partial.missing == len(partial.pieces) - len(held)
