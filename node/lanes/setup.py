"""What the process of a lane is told before it has an event loop: the first message in its pipe.

Not in its arguments or its environment, where everybody on the machine could read it; there is no
secret in it today, and there shall be no other way for one to get there.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import Final

from overlay.lanes.messages import MESSAGE_LIMIT
from overlay.wire.packing import Fields, pack

ASK: Final = b"\xc0"
"""From the daemon, any time later: report all counters now. No order begins like this."""


@dataclass(frozen=True, slots=True)
class LaneSetup:
    """How a lane is to be made. Names as in `NodeConfig` where it is from there."""

    lane: int
    local: bytes
    """The node's id."""
    host: str
    """Where the daemon listens."""
    port: int
    """Where this lane listens."""
    tun: str
    offloads: list[str]
    """Those of the daemon's own ports that passed its test."""
    loop: str
    log_level: str
    log_format: str

    def encode(self) -> bytes:
        """As one message.

        >>> setup = LaneSetup(1, b"n", "::", 6876, "muslin0", ["tso"], "uvloop", "", "")
        >>> LaneSetup.decode(setup.encode()) == setup
        True
        """
        return pack(list(astuple(self)))

    @classmethod
    def decode(cls, data: bytes) -> LaneSetup:
        """Read what `encode` made.

        Raises:
            WireError: it did not. Nothing else.
        """
        count = len(fields(cls))
        message = Fields.unpack_untrusted(data, MESSAGE_LIMIT, "lane setup", count=count)
        return cls(*[message.any(place) for place in range(count)])  # type: ignore[arg-type]
