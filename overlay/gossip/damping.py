r"""A key that changes all the time is not carried around the cluster all the time.

Each new version of a key adds one to its penalty, which halves every `HALF_LIFE` seconds:

    penalty
     20 |- - - - - - - /|- - - - - - -     above: new versions are not offered to neighbours;
        |           /|/ |                         comparing stores still brings the newest
     10 |- - - - /|/ - -|\- - - - - -     below again: offered at once, as before
        |     /|/          \
        +------------------------------ time

So a node that flaps, or changes its record several times a second, costs others a constant share,
and is known with the delay of anti-entropy instead of at once.

References:
    RFC 2439 (route flap damping), section 4.2: penalty, decay, suppress and reuse thresholds.
"""

from __future__ import annotations

from typing import Final

# -- implementation --------------------------------------------------------------------------------

SUPPRESS: Final = 20.0
"""A burst of twenty changes passes; more than 1.4 a second for long do not."""

REUSE: Final = 10.0

HALF_LIFE: Final = 10.0
"""Seconds."""

LIMIT: Final = 4096
"""Keys remembered. The least penalty is forgotten first."""

_FORGOTTEN: Final = 0.5


class Damping:
    """The penalties of the keys that changed lately.

    Attributes:
        suppressed: versions that were not offered.
    """

    __slots__ = ("_damped", "_penalties", "suppressed")

    def __init__(self) -> None:
        self._penalties: dict[bytes, tuple[float, float]] = {}  # penalty, and when it was that
        self._damped: dict[bytes, None] = {}
        self.suppressed = 0

    def on_change(self, key: bytes, now: float) -> bool:
        """There is a new version of `key`; whether it may be offered."""
        if len(self._penalties) >= LIMIT and key not in self._penalties:
            self._sweep(now)
        if key not in self._penalties:  # as a rule: most keys change once in a long time
            self._penalties[key] = 1.0, now
            return True
        penalty = self._decayed(key, now)
        if penalty < REUSE:
            self._damped.pop(key, None)
        penalty += 1.0
        self._penalties[key] = penalty, now
        if penalty > SUPPRESS:
            self._damped[key] = None
        if key not in self._damped:
            return True
        self.suppressed += 1
        return False

    def damped(self, now: float) -> list[bytes]:
        """Keys of which a new version would not be offered at `now`."""
        return [key for key in self._damped if self._decayed(key, now) >= REUSE]

    def _decayed(self, key: bytes, now: float) -> float:
        penalty, at = self._penalties.get(key, (0.0, now))
        return float(penalty * 0.5 ** ((now - at) / HALF_LIFE))

    def _sweep(self, now: float) -> None:
        decayed = {key: self._decayed(key, now) for key in self._penalties}
        keep = sorted(decayed, key=lambda key: decayed[key])[-LIMIT // 2 :]
        self._penalties = {key: (decayed[key], now) for key in keep if decayed[key] > _FORGOTTEN}
        self._damped = {key: None for key in self._damped if key in self._penalties}
