"""The result as a picture: bars in SVG, written by hand, readable on light and on dark paper.

One panel per figure, one bar per contestant, Muslin's in its own colour. Behind each bar stand the
value and how many times that Muslin has. Bars start at zero and share one scale within a panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from bench.figures import BY_KEY, Figure
from bench.summary import Summary
from bench.topology import Underlay
from node.svg import document, text

PANELS: Final = (
    (str(Underlay.VETH), "tcp1"),
    (str(Underlay.VETH), "tcp8"),
    (str(Underlay.WIRE), "tcp1"),
    (str(Underlay.VETH), "udp64-over"),
    (str(Underlay.VETH), "rtt1-p99"),
    (str(Underlay.VETH), "cpu"),
)

COLUMNS: Final = 2
WIDTH: Final = 490
MARGIN: Final = 24
TOP: Final = 98
NAMES: Final = 108
"""Width of the column of names."""
BAR: Final = 185
"""Width of the longest bar; values stand to the right of it."""
LINE: Final = 26
THICK: Final = 16
TITLE: Final = 46
GAP: Final = 22


def picture(summary: Summary, titles: Mapping[str, str], notes: Sequence[str]) -> str:
    """The whole picture as an SVG document.

    Args:
        summary: of a run; panels of figures that nobody has are left out.
        titles: of contestants, by name.
        notes: at most two lines of small print below the heading.
    """
    panels = [
        panel
        for underlay, key in PANELS
        if (panel := _panel(summary, underlay, BY_KEY[key], titles))
    ]
    rows = -(-len(panels) // COLUMNS)
    height = _panel_height(len(summary.contestants))
    whole = (2 * MARGIN + COLUMNS * WIDTH, TOP + rows * (height + GAP) + MARGIN)
    placed = [
        f'<g transform="translate({MARGIN + at % COLUMNS * WIDTH},'
        f'{TOP + at // COLUMNS * (height + GAP)})">\n{panel}\n</g>'
        for at, panel in enumerate(panels)
    ]
    body = [
        text(MARGIN, 38, "head", "Pod to pod across two nodes"),
        *(text(MARGIN, 60 + 17 * at, "soft", line) for at, line in enumerate(notes)),
        *placed,
    ]
    return document(whole, "Benchmark", body)


def _panel_height(contestants: int) -> int:
    return TITLE + contestants * LINE


def _panel(summary: Summary, underlay: str, figure: Figure, titles: Mapping[str, str]) -> str:
    values = {
        name: cell.median
        for name in summary.contestants
        if (cell := summary.of(underlay, name, figure.key)) is not None
    }
    longest = max(values.values(), default=0.0)
    if not longest:
        return ""
    way = "more is better" if figure.more_is_better else "less is better"
    where = "" if underlay == Underlay.VETH else "single frames on the wire: "
    parts = [
        text(0, 14, "title", where + figure.title),
        text(0, 32, "soft", f"{figure.unit}, {way}"),
        f'<path class="axis" d="M{NAMES} {TITLE - 4}V{TITLE + len(values) * LINE}"/>',
    ]
    for at, (name, value) in enumerate(values.items()):
        ratio = summary.ratio(underlay, "muslin", name, figure.key)
        note = f"Muslin: {_times(ratio.median)}" if ratio and name != "muslin" else ""
        width = BAR * value / longest
        parts += _bar(at, name, titles[name], (width, figure.show(value), note))
    return "\n".join(parts)


def _bar(at: int, name: str, title: str, shown: tuple[float, str, str]) -> list[str]:
    width, value, note = shown
    y = TITLE + at * LINE
    middle = y + THICK - 4
    kind, own = ("ours", "own") if name == "muslin" else ("other", "")
    after = NAMES + width + 8
    return [
        text(NAMES - 8, middle, own, title, end=True),
        f'<rect class="{kind}" x="{NAMES}" y="{y}" width="{width:.1f}" height="{THICK}" rx="2"/>',
        text(after, middle, own, value),
        *([text(after + 9 * len(value) + 4, middle, "soft", note)] if note else []),
    ]


def _times(ratio: float) -> str:
    """Two digits are what such a measurement is worth."""
    digits = 0 if ratio >= 10 else 1 if ratio >= 1 else 2
    return f"{ratio:.{digits}f}\u00d7"
