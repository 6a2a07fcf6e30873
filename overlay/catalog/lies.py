"""Why an item was refused: a lie, for which its sender is to blame, or only out of season."""

from __future__ import annotations

from typing import NamedTuple

from overlay.errors import AuthError, ForgedError, NewerError, OverlayError
from overlay.faults import Fault


class Lie(NamedTuple):
    """What is wrong with an item, whoever looks at it and whenever."""

    fault: Fault
    evidence: str


def lie_of(error: OverlayError) -> Lie | None:
    """The lie that an item was refused for; None if an honest node might have sent it.

    Certificates that are not valid at this time are nobody's fault, nor are authorities that are
    not trusted yet or any more, nor is a newer format.
    """
    match error:
        case ForgedError():
            return Lie(error.fault, str(error))
        case AuthError() | NewerError():
            return None
        case _:
            return Lie(Fault.MALFORMED_ITEM, str(error))
