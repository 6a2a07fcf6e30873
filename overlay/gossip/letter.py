"""What the parts of gossip want said: to whom, and what. The machine makes effects of it."""

from __future__ import annotations

from typing import NamedTuple

from overlay.effects import Effect
from overlay.types import NodeId
from overlay.wire.messages import (
    Buckets,
    Claims,
    Delta,
    Have,
    Ids,
    IndirectProbe,
    IndirectReply,
    Probe,
    ProbeReply,
    Summary,
    Want,
)

GossipMessage = (
    Probe
    | ProbeReply
    | Summary
    | Buckets
    | Ids
    | Delta
    | Have
    | Want
    | Claims
    | IndirectProbe
    | IndirectReply
)


class Letter(NamedTuple):
    """A message for a node.

    Attributes:
        node: to whom.
        message: without claims, if it is one that carries them: they are added when it goes.
        once: a call into the dark: if there is no session, try one initiation for it, no more.
    """

    node: NodeId
    message: GossipMessage
    once: bool = False


Action = Letter | Effect
"""What a part of gossip returns: letters, and effects that leave as they are."""
