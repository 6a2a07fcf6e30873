"""The keypairs of one session: which one seals, which ones still open.

    next       made as a responder; the other end has not proved yet that it has the keys.
               Opens, never seals.
    current    seals everything we send; opens.
    previous   what was current before; opens what is still on its way.
    leaving    what gave its place to another; opens for `FAREWELL` what is still on its way.

    accept     an initiation of theirs was answered      next := new
    confirm    a burst under next has authenticated      previous := current, current := next
    complete   the response to ours was accepted         previous := current, current := new

A keypair is given up only when there is proof that the other end seals under a newer one. So an
initiation, which may be the last one that ever gets through, never takes a key away that works.
Even then it opens for a while: when both start at once, three keypairs are in use within a round
trip, and what was sealed under the oldest may arrive last.

Both ends may start at once. Then each gets a response and has the other's keypair as `next`: two
working keypairs, each end sealing under its own. They would stay apart until the next rekey, so
the tie is broken: the keypair whose initiator has the smaller node id wins. The end that wins
opens bursts under the other keypair but does not change over to it.

    A, the smaller id                                               B
    current a, next b                                               current b, next a
                          -- a burst under a --------------->       current a, previous b
    current a, previous b <--------------- a burst under b --       (sent before)

References:
    WireGuard paper (Donenfeld 2017), section 6.3, and its kernel implementation (noise.c,
    `add_new_keypair`). Differs from it: answering an initiation does not drop `previous` and
    completing one does not drop `next`, because the other end may be sealing under either; and
    the tie is broken; and what was previous does not go at once.
"""

from __future__ import annotations

from typing import ClassVar, Final, Protocol

from overlay.session.transport import KEYPAIR, Keypair
from overlay.wire.handed import BOOL, SECONDS, Handed, many, maybe, pair, row

FAREWELL: Final = 5.0
"""Seconds a keypair still opens after another took its place: longer than datagrams are on their
way, also when both ends make new keypairs at once and three are in use within a round trip."""

LEAVING: Final = 2
"""Keypairs at most that do so."""


class Indexes(Protocol):
    """What a key ring needs of `overlay.session.index.IndexTable`."""

    def add(self, keypair: Keypair) -> None:
        """Let `keypair` be found by its local index."""

    def confirm(self, keypair: Keypair) -> None:
        """`keypair` is half open no longer."""

    def release(self, index: int) -> None:
        """`index` names nothing any more."""


class Keyring:
    """Previous, current and next keypair of one session; keeps the index table in step.

    Args:
        indexes: where the packet path finds keypairs.
        wins_ties: whether this end has the smaller node id.
    """

    __slots__ = ("_indexes", "_tied", "_wins_ties", "current", "leaving", "next", "previous")

    HANDED: ClassVar = Handed(
        **dict.fromkeys(("previous", "current", "next"), maybe(KEYPAIR)),
        leaving=many(row(pair, KEYPAIR, SECONDS)),
        _tied=BOOL,
    )

    def __init__(self, indexes: Indexes, *, wins_ties: bool) -> None:
        self._indexes = indexes
        self._wins_ties = wins_ties
        self._tied = False  # whether `next` was on its way when `current` was
        self.previous: Keypair | None = None
        self.current: Keypair | None = None
        self.next: Keypair | None = None
        self.leaving: list[tuple[Keypair, float]] = []  # with when it goes, oldest first

    def accept(self, keypair: Keypair) -> None:
        """A responder's new keypair, which the caller has put into the table as half open."""
        self._release(self.next)
        self.next, self._tied = keypair, False

    def complete(self, keypair: Keypair, now: float) -> None:
        """An initiator's new keypair: the response proved that the other end has it."""
        self._indexes.add(keypair)
        self._leave(self.previous, now)
        self.previous, self.current = self.current, keypair
        # What is unconfirmed at this moment was on its way at the same time as ours.
        self._tied = self.next is not None

    def confirm(self, keypair: Keypair, now: float) -> bool:
        """A burst under the unconfirmed `keypair` has authenticated.

        Returns:
            Whether it is the current one now. Not if it was dropped meanwhile, nor if it lost a
            tie.
        """
        if keypair is not self.next:
            return False
        keypair.confirmed = True
        self._indexes.confirm(keypair)
        self.next = None
        self._leave(self.previous, now)
        if self._wins_ties and self._tied:
            self.previous = keypair
            return False
        self.previous, self.current = self.current, keypair
        return True

    def expire(self, now: float) -> None:
        """Drop what is too old. `next` is half open and expires with the table's others."""
        while self.leaving and now >= self.leaving[0][1]:
            self._release(self.leaving.pop(0)[0])
        if self.previous is not None and now >= self.previous.expires_at:
            self._release(self.previous)
            self.previous = None
        if self.current is not None and now >= self.current.expires_at:
            self._release(self.current)
            self.current = None

    def drop_next(self, keypair: Keypair) -> None:
        """Forget a keypair that was not confirmed in time, or pushed out by others."""
        if keypair is self.next:
            self.next = None
        self._indexes.release(keypair.local_index)

    def clear(self) -> None:
        """Drop everything."""
        for keypair in self.all():
            self._release(keypair)
        self.leaving = []
        self.previous = self.current = self.next = None

    def held(self) -> tuple[Keypair | None, Keypair | None, Keypair | None]:
        """Previous, current, next; not what is leaving."""
        return self.previous, self.current, self.next

    def all(self) -> tuple[Keypair | None, ...]:
        """The same, then what is leaving."""
        return (*self.held(), *(keypair for keypair, _ in self.leaving))

    def _leave(self, keypair: Keypair | None, now: float) -> None:
        if keypair is None:
            return
        self.leaving.append((keypair, min(now + FAREWELL, keypair.expires_at)))
        if len(self.leaving) > LEAVING:
            self._release(self.leaving.pop(0)[0])

    def _release(self, keypair: Keypair | None) -> None:
        if keypair is not None:
            self._indexes.release(keypair.local_index)
