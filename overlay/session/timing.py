"""When a session acts: pure functions of an age, so that each rule can be read and tested alone.

    created                        rekey_after       fallback   reject_after
       |--------------------------------|---------------|-----------|
       0 s                            120 s           165 s       180 s
                                        |               |           |
            the initiator starts a new handshake        |           no use past here
                       the responder does, if it still sends

References:
    WireGuard paper (Donenfeld 2017), sections 6.1 to 6.4. Differs from it: the initiator replaces
    a keypair also when it has nothing to send at that moment, because members probe each other
    all the time; an unanswered handshake is repeated after 1, 1, 1, 2, 4, 5, 5, ... s instead of
    every 5 s; and it is repeated for as long as the old keypair lives, since giving up earlier
    would gain nothing.
"""

from __future__ import annotations

from typing import Final

from overlay.config import Timing

RETRY_JITTER: Final = 0.1
"""Share of the wait that is random, so that nodes that started together do not stay in step."""

EAGER_TRIES: Final = 3
"""Initiations that wait `handshake_retry` each, before the wait begins to double."""


def expires_at(created_at: float, timing: Timing) -> float:
    """When a keypair is no longer used, whatever happens."""
    return created_at + timing.reject_after


def rekey_at(created_at: float, timing: Timing) -> float:
    """When the initiator of a keypair replaces it."""
    return created_at + timing.rekey_after


def fallback_rekey_at(created_at: float, timing: Timing) -> float:
    """When the responder of a keypair replaces it, the initiator having failed to.

    Three quarters of the way from `rekey_after` to `reject_after`: late enough that the initiator
    has had many tries, early enough for several of our own.
    """
    return created_at + timing.reject_after - (timing.reject_after - timing.rekey_after) / 4


def retry_delay(tries: int, chance: float, timing: Timing) -> float:
    """How long to wait for a response before sending the next initiation.

    Args:
        tries: initiations sent so far in this handshake, at least 1.
        chance: a random number, 0.0 <= chance < 1.0.
        timing: the settings.

    >>> [retry_delay(tries, 0.0, Timing()) for tries in (1, 2, 3, 4, 5, 6)]
    [1.0, 1.0, 1.0, 2.0, 4.0, 5.0]
    """
    # Most losses are single ones, so patience grows only after several in a row. The exponent is
    # bounded because a rekey may go on for minutes.
    delay = timing.handshake_retry * 2.0 ** min(max(tries - EAGER_TRIES, 0), 16)
    return min(delay, timing.handshake_retry_max) * (1 + RETRY_JITTER * chance)


def give_up_at(started_at: float, session_until: float | None, timing: Timing) -> float:
    """When an unanswered handshake ends.

    Args:
        started_at: when its first initiation was sent.
        session_until: when the keypair that it shall replace expires; None for a first handshake.
        timing: the settings.
    """
    end = started_at + timing.handshake_give_up
    return end if session_until is None else max(end, session_until)
