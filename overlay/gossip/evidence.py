"""What one node knows of a member's life: the claim it believes, and what it heard and probed."""

from __future__ import annotations

from typing import ClassVar, Final

from overlay.views import NodeState
from overlay.wire.claims import ClaimState
from overlay.wire.handed import BYTES, INT, SECONDS, Handed, maybe, member


class Evidence:
    """What there is to say of a member beyond its boot.

    For most members of a large cluster nothing: a node hears and probes its neighbours, and that
    somebody just lives is not told.
    """

    __slots__ = (
        "heard_at",
        "incarnation",
        "misses",
        "probes",
        "proof",
        "reported",
        "rtt",
        "since",
        "state",
    )

    HANDED: ClassVar = Handed(
        incarnation=INT,
        state=member(ClaimState),
        proof=BYTES,
        since=SECONDS,
        heard_at=maybe(SECONDS),
        reported=maybe(member(NodeState)),
        rtt=maybe(SECONDS),
        probes=INT,
        misses=INT,
    )

    def __init__(self) -> None:
        self.incarnation = 0
        self.state = ClaimState.ALIVE
        self.proof = b""
        self.since = 0.0  # when the claim last went from alive to worse, or back
        self.heard_at: float | None = None
        self.reported: NodeState | None = None
        self.rtt: float | None = None
        self.probes = 1  # results as bits, the last one lowest, behind a leading one
        self.misses = 0  # probes in a row that failed, since a session came up or it contradicted

    @property
    def plain(self) -> bool:
        """Whether there is nothing to say of it: it started and lives."""
        return not (self.incarnation or self.state)


NOTHING: Final = Evidence()
"""That of members of which there is none. Never changed."""
