"""How long certificates live, and when they are to be renewed or warned about.

    not_before                                                                      not_after
        |  1 h  |                      lifetime                                         |
        +-------+---------------------------------------------+------------+-----------+
             issued                                     renewed (1/3)  overdue (1/4)   members
                                                                                       warn (1/10)

The shares are of the whole life, from `not_before` on, so that everybody who sees a certificate
comes to the same moments. A third leaves a month of 90 days: long enough for an authority's node
that is away, and for a node that is switched on seldom.

References:
    Let's Encrypt, "Integration Guide": renew when a third of the total lifetime is left, which for
    90 days is a month before the end.
"""

from __future__ import annotations

from typing import Final

from overlay.wire.certificate import Certificate
from overlay.wire.packing import MAX_TIME

BACKDATED: Final = 3600
"""Certificates are valid from this long before they are made: clocks of members differ. One that is
to live for less than two hours is backdated by half of its life."""

RENEW_SHARE: Final = 3
"""A certificate is renewed when less than one part in so many of its life is left."""

OVERDUE_SHARE: Final = 4
"""With less than one part in so many left, its node says that it was not renewed, and why."""

MEMBERS_WARN_SHARE: Final = 10
"""With less than one part in so many left, every member says so."""

SHORTEST_DAYS: Final = 1
LONGEST_DAYS: Final = 3650
"""Of the lifetime that an operator may choose. Shorter ones would end with a long weekend; with
longer ones a stolen key is a member for ever."""


def validity(wall: float, lifetime: int) -> tuple[int, int]:
    """From when until when a certificate that is made now is valid.

    Args:
        wall: the present, in Unix seconds.
        lifetime: seconds it is to live, 1 or more.

    Returns:
        `not_before` and `not_after`, in Unix seconds.

    >>> validity(1_000_000.5, 86_400), validity(1_000_000.5, 60)
    ((996400, 1086400), (999970, 1000060))
    """
    backdated = min(BACKDATED, lifetime // 2)
    return int(wall) - backdated, min(int(wall) + lifetime, MAX_TIME)


def life(certificate: Certificate) -> int:
    """The seconds from its beginning to its end."""
    return certificate.not_after - certificate.not_before


def last_part(certificate: Certificate, share: int) -> float:
    """When the last of `share` equal parts of its life begins, in Unix seconds."""
    return certificate.not_after - life(certificate) / share


def is_due(certificate: Certificate, issuer: bytes, wall: float) -> bool:
    """Whether a certificate is to be renewed.

    Args:
        certificate: the one in use.
        issuer: key of the authority that signs new certificates at present, 32 bytes.
        wall: the present, in Unix seconds.
    """
    return certificate.issuer != issuer or wall >= last_part(certificate, RENEW_SHARE)
