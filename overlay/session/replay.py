"""Replay window: each counter of a keypair is accepted at most once.

UDP reorders and duplicates datagrams, so a receiver cannot demand strictly increasing counters.
It remembers which of the last `WINDOW` counters it accepted: older ones are refused, those inside
are accepted once, newer ones move the window.

    counter      ... 8190 8191 8192 8193 8194 8195 ...
    slot               8190 8191    0    1    2    3          slot = counter mod 8192
    seen              1    0    1    1    0    1
                                             ^ highest = 8195; 3..8195 are inside the window

The window is a ring with one byte per counter. Nothing is ever shifted: moving on by n counters
clears the n - 1 slots that were skipped, and in order that is none. The ring begins with `FIRST`
slots and grows until it is whole: most sessions carry little, and a node has many of them.

References:
    RFC 6479, section 2: the ring instead of a shift register. Differs from the RFC: a byte per
    counter instead of a bit, because Python indexes bytes and would have to mask bits out of
    words. Measured on CPython 3.11, `check` and `accept` together: 0.3 us. A list with the last
    counter of each slot is as fast but takes up to 320 KB; one big integer, shifted, takes 1.2 us.
    WireGuard paper (Donenfeld 2017), section 5.4.6: the counter is also the AEAD nonce.
"""

from __future__ import annotations

from typing import ClassVar, Final

from overlay.wire.handed import FLAGS, INT, Handed

# -- specification ---------------------------------------------------------------------------------

WINDOW: Final = 8192
"""Counters remembered, the highest one included (a count of bursts, not of bytes)."""

REJECT_COUNTER: Final = 1 << 63
"""No burst is sent or accepted with this counter or above: a nonce must never come twice, and half
the space is more than any line could send in the life of a keypair."""

# -- implementation --------------------------------------------------------------------------------

FIRST: Final = 64
"""Slots of a new window."""

_MASK: Final = WINDOW - 1


class ReplayWindow:
    """Which counters of one keypair were accepted.

    Call `check` before the AEAD, to spend nothing on duplicates, and `accept` only after the tag
    verified: an unauthenticated counter must not be able to move the window, it would let anyone
    lock the real peer out.

    Attributes:
        highest: the highest counter accepted; -1 before the first.
    """

    __slots__ = ("_seen", "highest")

    HANDED: ClassVar = Handed(highest=INT, _seen=FLAGS)

    def __init__(self) -> None:
        self.highest = -1
        self._seen = bytearray(FIRST)  # has a slot for each counter up to the highest, or all

    def check(self, counter: int) -> bool:
        """Whether `accept` would take `counter`. Changes nothing.

        Args:
            counter: 0 <= counter < 2**64.
        """
        highest = self.highest
        if counter > highest:
            return counter < REJECT_COUNTER
        return counter > highest - WINDOW and not self._seen[counter & _MASK]

    def accept(self, counter: int) -> bool:
        """Record `counter`; report whether it was new.

        Args:
            counter: 0 <= counter < 2**64.

        Returns:
            False, and nothing changes, for a duplicate, a counter `WINDOW` or more behind the
            highest, or one from `REJECT_COUNTER` on.

        >>> window = ReplayWindow()
        >>> [window.accept(counter) for counter in (0, 2, 1, 2, 9000, 808, 809)]
        [True, True, True, False, True, False, True]
        """
        ahead = counter - self.highest
        if ahead > 0:
            if counter >= REJECT_COUNTER:
                return False
            if ahead > 1:
                self._skip(ahead)
            self.highest = counter
        elif ahead <= -WINDOW or self._seen[counter & _MASK]:
            return False
        try:
            self._seen[counter & _MASK] = 1
        except IndexError:  # not asked before: that would cost whole windows, too
            self._grow(counter)
            self._seen[counter & _MASK] = 1
        return True

    def _grow(self, counter: int) -> None:
        """Make a slot for `counter`, and all that come before it."""
        held = len(self._seen)
        size = held
        while size <= min(counter, _MASK):
            size *= 2
        self._seen.extend(bytes(size - held))

    def _skip(self, ahead: int) -> None:
        """Forget the counters that share a slot with those skipped by moving `ahead`."""
        if ahead >= WINDOW:
            self._seen = bytearray(WINDOW)
            return
        self._grow(self.highest + ahead)
        for counter in range(self.highest + 1, self.highest + ahead):
            self._seen[counter & _MASK] = 0
