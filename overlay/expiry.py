"""What there is to say of certificates that end: this node's own, and those of other members.

    own       less than a quarter left, or a new one was declined    `certificate-expires`
              it has ended                                           `certificate-expired`
    others'   less than a tenth left, or it has ended                `member-certificate-expires`

A certificate is renewed when a third is left, so that none of these is ever seen while all is well.
The thresholds are those of `overlay.validity`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from overlay.catalog.records import NodeRecord
from overlay.renewal import Renewal
from overlay.validity import MEMBERS_WARN_SHARE, OVERDUE_SHARE, last_part
from overlay.views import Problem
from overlay.wall import remaining, rfc3339
from overlay.wire.certificate import Certificate

_BY_HAND: Final = "muslin cert request here, then muslin cert sign on that node"


def own_problems(certificate: Certificate, renewal: Renewal, wall: float) -> Iterator[Problem]:
    """What is wrong with this node's certificate.

    Args:
        certificate: the one in use.
        renewal: says why there is no new one.
        wall: the present, in Unix seconds.
    """
    until = rfc3339(certificate.not_after)
    why = f"it was not renewed: {renewal.why or 'nobody was asked yet'}"
    if wall >= certificate.not_after:
        yield Problem(
            "certificate-expired",
            f"this node's certificate ended at {until}: its sessions end, nobody makes new ones",
            why,
            f"see whether the clock is right; else have it certified by hand: {_BY_HAND}",
        )
    elif renewal.refused or wall >= last_part(certificate, OVERDUE_SHARE):
        yield Problem(
            "certificate-expires",
            f"this node's certificate ends at {until}, in {_left(certificate, wall)}",
            why,
            "make a node that holds the authority's key reachable and see what is wrong there; "
            f"or {_BY_HAND}",
        )


def member_problems(records: Iterable[NodeRecord], wall: float) -> Iterator[Problem]:
    """Whose certificate ends soon, or has ended.

    Args:
        records: of the other members, those that have left not among them.
        wall: the present, in Unix seconds.
    """
    for record in records:
        certificate = record.certificate
        if wall < last_part(certificate, MEMBERS_WARN_SHARE):
            continue
        until, ended = rfc3339(certificate.not_after), wall >= certificate.not_after
        when = f"ended at {until}" if ended else f"ends at {until}, in {_left(certificate, wall)}"
        yield Problem(
            "member-certificate-expires",
            f"the certificate of node {record.name} {when}",
            "it was not renewed: the node is off, or nobody with the authority's key is reachable",
            f"look at muslin status on {record.name}; muslin remove it if it is gone for ever",
        )


def _left(certificate: Certificate, wall: float) -> str:
    return remaining(certificate.not_after - wall)
