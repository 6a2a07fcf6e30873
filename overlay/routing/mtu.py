"""How large a packet may be on the way to one peer: found out by trying, never by believing.

Segments are sent with "don't fragment", so one that is too large for some link on the way is lost,
and often nobody says so. This machine sends padded probes of a few likely sizes inside the session
and keeps the largest that was answered. Data never depends on a size that was not proven.

             first deadline                     top answered, or no size left
    (base) ------------------> SEARCHING ------------------------------------> SETTLED
                                ^  3 tries each or more                           |
                                |  top first, then halving                        |
                                +--- raise timer, larger interface, or the size --+
                                     does not pass (then from base again)

Beside every probe goes a control, a probe of the base size. A size is judged too big when it stayed
unanswered in a round in which three controls were answered. Without the control, a link that is
down for a while would look like a small one, and a lossy one would often be misjudged (3 lost of 3
happens to 13 % of rounds where 30 % of packets are lost).

Three things bring a confirmation of the size in use: a timer, a peer that reports incomplete
bursts, and nothing else. A report of loss is a reason to ask, never an answer: while the probes
pass, loss is just loss, and the next report has to wait twice as long to be asked about.

ICMP reaches this machine only as what the kernel makes of it, a refused send (`on_too_big`). The
sockets ignore the path MTU that the kernel learns from ICMP, so a forged message moves nothing.

References:
    RFC 8899 (DPLPMTUD): probes, MAX_PROBES, the raise and confirmation timers, section 5.2. Differs
    from it: the largest size is tried first, because it usually fits and then one round trip is all
    it takes; the probe timer may be below one second, because the paths are short and few; black
    holes are told from dead paths by the control probe; the base is 1280 instead of 1200.
    RFC 8200, section 5: every IPv6 link carries 1280 bytes; in practice every IPv4 path does, too.
"""

from __future__ import annotations

from typing import ClassVar, Final

from overlay.config import Timing
from overlay.wire.handed import BOOL, INT, SECONDS, Handed, many, maybe

# -- specification ---------------------------------------------------------------------------------

BASE: Final = 1280
"""Bytes of an IP packet that every path is assumed to carry. Nothing goes below: a forged hint
must not be able to make every burst hundreds of segments."""

LARGEST: Final = 9216
"""Bytes of the largest packet worth probing for; the jumbo frames of common switches end here."""

ETHERNET: Final = 1500
"""Probed beside every larger size until it is in use: most paths carry at least this, and one that
carries no jumbo frames must not stay at the base size while they are tried."""

TRIES: Final = 3
"""Unanswered probes of a size, and answered controls beside them, that prove it too big (RFC 8899,
section 5.1.2, MAX_PROBES)."""

MAX_TRIES: Final = 6
"""Probes in one round; if too few controls were answered by then, the round proves nothing."""

# -- implementation --------------------------------------------------------------------------------

CANDIDATES: Final = (
    1360,
    1400,  # networks whose owner rounded down
    1420,  # inside WireGuard over IPv6
    1440,  # inside WireGuard over IPv4
    1450,  # inside VXLAN
    1460,  # Google Cloud's default
    1480,  # inside IP-in-IP or 6in4
    1492,  # PPPoE
    1500,  # Ethernet
    4000,
    8500,
    8896,  # Google Cloud's jumbo frames
    8950,  # inside VXLAN on jumbo frames
    9000,  # jumbo frames
)
"""Sizes between `BASE` and the largest to try, which is a candidate as well."""

_NEVER: Final = float("inf")


class PathMtu:
    """The path MTU to one peer at one endpoint.

    Whoever holds it sends a probe of each size that a verb returns, once, padded so that the IP
    packet has exactly that size, and reports the answers. For another endpoint, `reset` it.

    Args:
        timing: `path_probe_retry`, `path_confirm_interval`, `path_raise_interval`.
        largest: bytes of the largest packet that the local interface sends.
        now: monotonic seconds.
    """

    __slots__ = (
        "_controls",
        "_doubt_at",
        "_doubt_wait",
        "_due",
        "_high",
        "_low",
        "_probing",
        "_raise_at",
        "_sent",
        "_sizes",
        "_timing",
        "_top_first",
        "_tries",
    )

    HANDED: ClassVar = Handed(
        **dict.fromkeys(("_low", "_high", "_tries", "_controls"), INT),
        **dict.fromkeys(("_due", "_raise_at", "_doubt_at", "_doubt_wait"), SECONDS),
        _top_first=BOOL,
        _probing=maybe(INT),
        _sent=many(INT, set),
        _sizes=many(INT, tuple),
    )

    def __init__(self, *, timing: Timing, largest: int, now: float) -> None:
        self._timing = timing
        self._sizes = _sizes_up_to(largest)
        self.reset(now)

    def reset(self, now: float) -> None:
        """Another endpoint, hence another path: back to the base size, search at once."""
        self._low = 0  # index of the size in use
        self._high = len(self._sizes)  # index of the smallest size judged too big
        self._top_first = True
        self._probing: int | None = None  # index of the size being tried; `_low`: a confirmation
        self._tries = 0
        self._controls = 0  # answered since the first try
        self._sent: set[int] = set()
        self._due = now if self.searching else _NEVER
        self._raise_at = _NEVER
        self._doubt_at = now  # a report of loss counts from here on
        self._doubt_wait = 2 * self._timing.path_probe_retry

    @property
    def mtu(self) -> int:
        """Bytes of the largest IP packet that is known to pass; `BASE` or more."""
        return self._sizes[self._low]

    @property
    def searching(self) -> bool:
        """Whether a larger size may still be found in the present search."""
        return self._low + 1 < self._high

    @property
    def probing(self) -> bool:
        """Whether a probe is out that was not answered yet."""
        return self._probing is not None

    def next_deadline(self) -> float | None:
        """When `on_deadline` has something to do next; None if never."""
        due = self._due if self._probing is not None else min(self._due, self._raise_at)
        return None if due == _NEVER else due

    def on_deadline(self, now: float) -> list[int]:
        """Do what is due: the sizes to probe now."""
        due = self.next_deadline()
        if due is None or now < due:
            return []
        if self._probing is not None:
            return self._send(now) if self._undecided() else self._judge(now)
        if now >= self._raise_at:
            return self._search_below(len(self._sizes), now)
        return self._continue(now) if self.searching else self._probe(self._low, now)

    def on_reply(self, size: int, now: float) -> list[int]:
        """A probe of `size` arrived at the peer: sizes to probe next.

        Late answers count: they prove the same. Answers to what was never asked do not.
        """
        if size not in self._sent:
            return []
        if size == BASE:
            self._controls += 1
            return []
        index = self._sizes.index(size)
        self._low = max(self._low, index)
        self._high = max(self._high, index + 1)
        if self._probing is None or self._probing > index:
            return []
        return self._continue(now)

    def on_too_big(self, size: int, now: float) -> list[int]:
        """The kernel or the network says that a packet of `size` bytes does not fit: a hint.

        While a larger size is being tried it is taken to mean that probe. Otherwise, if it
        concerns the size in use, the search starts again below it, from the base size.

        Returns:
            Sizes to probe next.
        """
        if self._probing is not None and self._probing > self._low:
            self._high = self._probing
            return self._continue(now)
        if not BASE < size <= self.mtu:
            return []
        self._low, refused = 0, next(i for i, known in enumerate(self._sizes) if known >= size)
        return self._search_below(refused, now)

    def on_loss(self, now: float) -> list[int]:
        """The peer misses segments: ask at once whether the size in use still passes.

        Returns:
            Sizes to probe next; none while a probe is out anyway, or soon after loss was asked
            about before and turned out to be loss alone.
        """
        if self._probing is not None or not self._low or now < self._doubt_at:
            return []
        longest = self._timing.path_confirm_interval
        if now - self._doubt_at > longest:  # there was peace in between
            self._doubt_wait = 2 * self._timing.path_probe_retry
        self._doubt_at = now + self._doubt_wait
        self._doubt_wait = min(2 * self._doubt_wait, longest)
        return self._probe(self._low, now)

    def on_largest(self, largest: int, now: float) -> list[int]:
        """The local interface sends packets of up to `largest` bytes from now on.

        Returns:
            Sizes to probe next: a larger interface is tried at once.
        """
        largest = max(BASE, min(largest, LARGEST))
        if largest == self._sizes[-1]:
            return []
        mtu = self.mtu if self.mtu <= largest else BASE
        self._sizes = tuple(sorted({*_sizes_up_to(largest), mtu}))
        self._low = self._sizes.index(mtu)
        return self._search_below(len(self._sizes), now)

    def _probe(self, index: int, now: float) -> list[int]:
        self._probing = index
        self._tries = 0
        self._controls = 0
        return self._send(now)

    def _send(self, now: float) -> list[int]:
        assert self._probing is not None, "only a probe can be sent"
        self._tries += 1
        self._due = now + self._timing.path_probe_retry
        sizes = [self._sizes[self._probing], BASE]
        if self.mtu < ETHERNET < sizes[0]:
            sizes.insert(1, ETHERNET)
        self._sent.update(sizes)
        return sizes

    def _undecided(self) -> bool:
        return self._tries < TRIES or (self._controls < TRIES and self._tries < MAX_TRIES)

    def _judge(self, now: float) -> list[int]:
        index, self._probing = self._probing, None
        assert index is not None, "only a probe can be judged"
        if self._controls < TRIES:
            # Little gets through, whatever its size: that says nothing. Try again later.
            self._top_first = True
            self._due = now + self._timing.path_confirm_interval
            return []
        if index == self._low:
            # The size in use is the first to be tried again: only data must not wait for that.
            self._low = 0
            return self._search_below(index + 1, now)
        self._high = index
        return self._continue(now)

    def _search_below(self, high: int, now: float) -> list[int]:
        self._high = high
        self._top_first = True
        self._raise_at = _NEVER
        self._doubt_wait = 2 * self._timing.path_probe_retry
        self._sent.clear()
        return self._continue(now)

    def _continue(self, now: float) -> list[int]:
        """The next probe of the search, or the end of it."""
        self._probing = None
        if self.searching:
            at = self._high - 1 if self._top_first else (self._low + self._high) // 2
            self._top_first = False
            return self._probe(at, now)
        # The base size needs no confirmation: there is nothing below it to fall back to.
        self._due = now + self._timing.path_confirm_interval if self._low else _NEVER
        if self._raise_at == _NEVER and self._low + 1 < len(self._sizes):
            self._raise_at = now + self._timing.path_raise_interval
        return []

    def check_invariants(self) -> None:
        """Assert what must always hold; called by tests after each step."""
        assert 0 <= self._low < self._high <= len(self._sizes)
        assert list(self._sizes) == sorted(set(self._sizes))
        assert self._probing is None or self._low <= self._probing < self._high
        assert BASE <= self.mtu <= LARGEST
        assert 0.0 < self._doubt_wait <= self._timing.path_confirm_interval
        assert self._raise_at != _NEVER or self.searching or self._high == len(self._sizes)


def _sizes_up_to(largest: int) -> tuple[int, ...]:
    largest = max(BASE, min(largest, LARGEST))
    likely = (size for size in CANDIDATES if size < largest)
    return tuple(sorted({BASE, *likely, largest}))
