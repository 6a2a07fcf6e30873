"""Pictures as SVG, written by hand: one style, readable on light and on dark paper.

What is drawn is the caller's; this is the paper, the letters and the colours. Classes that marks
may have: `ours` and `other` (filled), `axis` (a stroke), and for text `head`,
`title`, `soft`, `own`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

STYLE: Final = """
  .paper { fill: #ffffff } text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .head { font-size: 20px; font-weight: 600 } .title { font-size: 14px; font-weight: 600 }
  .soft { fill: #59636e; font-size: 12px } .other { fill: #b6bfc9 } .ours { fill: #0f7b6c }
  .own { font-weight: 600 } .axis { stroke: #d1d9e0 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117 } text { fill: #e6edf3 } .soft { fill: #9198a1 }
    .other { fill: #6b7580 } .ours { fill: #2fbfa7 } .axis { stroke: #3d444d }
  }
"""


def text(x: float, y: float, kind: str, words: str, *, end: bool = False) -> str:
    """One line of text that begins, or with `end` ends, at `x`."""
    anchor = ' text-anchor="end"' if end else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}"{anchor}>{escape(words)}</text>'


def document(
    size: tuple[float, float], label: str, body: Sequence[str], *, style: str = STYLE
) -> str:
    """The whole picture.

    Args:
        size: width and height in pixels.
        label: what it shows, for those who cannot see it.
        body: elements, in the order in which they are drawn.
        style: of the classes used.
    """
    width, height = size
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(label)}"',
            f' viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}">',
            f"<style>{style}</style>",
            '<rect class="paper" width="100%" height="100%" rx="8"/>',
            *body,
            "</svg>\n",
        ]
    )
