"""What is measured: every figure with its name, its unit and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Figure:
    """One number per contestant, round and underlay."""

    key: str
    """Its name in the JSON."""
    title: str
    unit: str
    more_is_better: bool = True
    digits: int = 2
    """Shown behind the decimal point."""

    def show(self, value: float) -> str:
        """The value as text, without its unit.

        >>> Figure("x", "x", "k/s", digits=1).show(12.345)
        '12.3'
        """
        return f"{value:,.{self.digits}f}"


FIGURES: Final = (
    Figure("tcp1", "TCP, 1 stream", "Gbit/s"),
    Figure("tcp8", "TCP, 8 streams", "Gbit/s"),
    Figure("tcp-both", "TCP, both directions at once", "Gbit/s, added"),
    Figure("udp1300", "UDP 1300 B, delivered with under 1 % loss", "k/s", digits=1),
    Figure("udp1300-over", "UDP 1300 B, delivered when overloaded", "k/s", digits=1),
    Figure("udp64", "UDP 64 B, delivered with under 1 % loss", "k/s", digits=1),
    Figure("udp64-over", "UDP 64 B, delivered when overloaded", "k/s", digits=1),
    Figure("rtt-p50", "RTT p50, idle", "ms", more_is_better=False, digits=3),
    Figure("rtt-p99", "RTT p99, idle", "ms", more_is_better=False, digits=3),
    Figure("rtt1-p50", "RTT p50 under 1 TCP stream", "ms", more_is_better=False),
    Figure("rtt1-p99", "RTT p99 under 1 TCP stream", "ms", more_is_better=False),
    Figure("rtt8-p50", "RTT p50 under 8 TCP streams", "ms", more_is_better=False),
    Figure("rtt8-p99", "RTT p99 under 8 TCP streams", "ms", more_is_better=False),
    Figure("connections", "TCP connections, one after another, 4 at a time", "1/s", digits=0),
    Figure("cpu", "both daemons' CPU, TCP 1 stream", "s/GB", more_is_better=False),
    Figure("rss", "both daemons' memory, now", "MB", more_is_better=False, digits=0),
    Figure("rss-peak", "both daemons' memory, peak", "MB", more_is_better=False, digits=0),
    Figure("others-cpu", "idle daemons of the others, TCP 1 stream", "CPUs", digits=3),
    Figure("frame", "mean frame on the underlay, TCP 1 stream", "bytes", digits=0),
)

BY_KEY: Final = {figure.key: figure for figure in FIGURES}

NOT_COMPARED: Final = frozenset({"others-cpu", "frame"})
"""Of the measurement itself: whether it was fair, and whether the wire was one."""
