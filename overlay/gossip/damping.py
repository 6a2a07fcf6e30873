r"""A key that changes all the time is not carried around the cluster all the time.

Each new version of a key adds one to its penalty, which halves every `HALF_LIFE` seconds:

    penalty
     20 |- - - - - - - /|- - - - - - -     above: new versions are not offered to neighbours;
        |           /|/ |                         comparing stores still brings the newest
     10 |- - - - /|/ - -|\- - - - - -     below again: offered at once, as before
        |     /|/          \
        +------------------------------ time

What is kept of a key is one number: when its penalty will have decayed to one. A penalty of twice
as much is one `HALF_LIFE` later.

So a node that flaps, or changes its record several times a second, costs others a constant share,
and is known with the delay of anti-entropy instead of at once.

References:
    RFC 2439 (route flap damping), section 4.2: penalty, decay, suppress and reuse thresholds.
"""

from __future__ import annotations

from math import log2
from typing import ClassVar, Final

from overlay.wire.handed import BYTES, INT, SECONDS, Handed, keys, table

# -- implementation --------------------------------------------------------------------------------

SUPPRESS: Final = 20.0
"""A burst of twenty changes passes; more than 1.4 a second for long do not."""

REUSE: Final = 10.0

HALF_LIFE: Final = 10.0
"""Seconds."""

LIMIT: Final = 4096
"""Keys remembered. The least penalty is forgotten first."""

_FORGOTTEN: Final = 0.5
"""A penalty as good as none: that of a single change after one `HALF_LIFE`."""


class Damping:
    """The penalties of the keys that changed lately.

    Attributes:
        suppressed: versions that were not offered.
    """

    __slots__ = ("_damped", "_ones", "_swept_at", "suppressed")

    HANDED: ClassVar = Handed(_ones=table(BYTES, SECONDS), _damped=keys(BYTES), suppressed=INT)

    def __init__(self) -> None:
        self._ones: dict[bytes, float] = {}  # key -> when its penalty is, or was, 1
        self._damped: dict[bytes, None] = {}
        self._swept_at = float("-inf")
        self.suppressed = 0

    def __len__(self) -> int:
        """Keys remembered."""
        return len(self._ones)

    def on_change(self, key: bytes, now: float) -> bool:
        """There is a new version of `key`; whether it may be offered."""
        if key not in self._ones:  # as a rule: most keys change once in a long time
            if len(self._ones) >= LIMIT:
                self._sweep(now)
            self._ones[key] = now
            return True
        penalty = self._decayed(key, now)
        if penalty < REUSE:
            self._damped.pop(key, None)
        penalty += 1.0
        self._ones[key] = now + HALF_LIFE * log2(penalty)
        if penalty > SUPPRESS:
            self._damped[key] = None
        if key not in self._damped:
            return True
        self.suppressed += 1
        return False

    def on_time(self, now: float) -> None:
        """Forget what has decayed. To be called now and then."""
        if self._ones and now - self._swept_at >= HALF_LIFE:
            self._sweep(now, keep=LIMIT)

    def damped(self, now: float) -> list[bytes]:
        """Keys of which a new version would not be offered at `now`."""
        return [key for key in self._damped if self._decayed(key, now) >= REUSE]

    def _decayed(self, key: bytes, now: float) -> float:
        one = self._ones.get(key)
        return 0.0 if one is None else float(2.0 ** ((one - now) / HALF_LIFE))

    def _sweep(self, now: float, keep: int = LIMIT // 2) -> None:
        self._swept_at = now
        worst = sorted(self._ones.items(), key=lambda item: item[1])[-keep:]
        self._ones = {key: one for key, one in worst if one > now + HALF_LIFE * log2(_FORGOTTEN)}
        self._damped = {key: None for key in self._damped if key in self._ones}
