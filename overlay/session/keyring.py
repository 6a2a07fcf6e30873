"""The keypairs of one session: which one seals, which ones still open.

    next       made as a responder; the other end has not proved yet that it has the keys.
               Opens, never seals.
    current    seals everything we send; opens.
    previous   what was current before; opens what is still on its way.

    accept     an initiation of theirs was answered      next := new
    confirm    a burst under next has authenticated      previous := current, current := next
    complete   the response to ours was accepted         previous := current, current := new

A keypair is given up only when there is proof that the other end seals under a newer one. So an
initiation, which may be the last one that ever gets through, never takes a key away that works.

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
    the tie is broken.
"""

from __future__ import annotations

from typing import Protocol

from overlay.session.transport import Keypair


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

    __slots__ = ("_indexes", "_tied", "_wins_ties", "current", "next", "previous")

    def __init__(self, indexes: Indexes, *, wins_ties: bool) -> None:
        self._indexes = indexes
        self._wins_ties = wins_ties
        self._tied = False  # whether `next` was on its way when `current` was
        self.previous: Keypair | None = None
        self.current: Keypair | None = None
        self.next: Keypair | None = None

    def accept(self, keypair: Keypair) -> None:
        """A responder's new keypair, which the caller has put into the table as half open."""
        self._release(self.next)
        self.next, self._tied = keypair, False

    def complete(self, keypair: Keypair) -> None:
        """An initiator's new keypair: the response proved that the other end has it."""
        self._indexes.add(keypair)
        self._release(self.previous)
        self.previous, self.current = self.current, keypair
        # What is unconfirmed at this moment was on its way at the same time as ours.
        self._tied = self.next is not None

    def confirm(self, keypair: Keypair) -> bool:
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
        self._release(self.previous)
        if self._wins_ties and self._tied:
            self.previous = keypair
            return False
        self.previous, self.current = self.current, keypair
        return True

    def expire(self, now: float) -> None:
        """Drop what is too old. `next` is half open and expires with the table's others."""
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
        for keypair in self.held():
            self._release(keypair)
        self.previous = self.current = self.next = None

    def held(self) -> tuple[Keypair | None, Keypair | None, Keypair | None]:
        """Previous, current, next."""
        return self.previous, self.current, self.next

    def _release(self, keypair: Keypair | None) -> None:
        if keypair is not None:
            self._indexes.release(keypair.local_index)
