"""Convergence as a picture: for each event, the share of nodes that knew after so many seconds.

One step curve per event, from no node to all; a curve that ends below 100 % is of an event that
did not reach everybody. The file is SVG; as PNG it needs `rsvg-convert` or `cairosvg`.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from node.errors import NodeError
from node.svg import STYLE, document, text
from overlay.sim.outcome import EventSummary

WIDTH: Final = 760
LEFT: Final = 64
TOP: Final = 84
PLOT_WIDTH: Final = 420
PLOT_HEIGHT: Final = 280
LEGEND: Final = 24
"""Between the plot and the names of its curves."""
LINE: Final = 22

COLOURS: Final = (
    "#0f7b6c", "#c2571a", "#3b6fd4", "#a8338f", "#8a7a00", "#d13438", "#4f5bd5", "#5b8a3a",
)  # fmt: skip
"""Told apart on light and on dark paper."""

STEPS: Final = (1.0, 2.0, 5.0)
"""Ends of the scale, times a power of ten."""

CONVERT_TIMEOUT: Final = 60.0
"""Seconds for a converter."""


def picture(title: str, events: Sequence[EventSummary], note: str) -> str:
    """The SVG document.

    Args:
        title: of the scenario.
        events: those without a final state are left out.
        note: one line of small print.
    """
    shown = [event for event in events if event.seconds]
    longest = max((event.seconds[-1] for event in shown), default=1.0)
    scale = round_up(longest)
    height = max(TOP + PLOT_HEIGHT + 56, TOP + 2 * LINE * len(shown) + 20)
    body = [
        text(24, 38, "head", title),
        text(24, 60, "soft", note),
        *_axes(scale),
        *(_curve(event, scale, COLOURS[at % len(COLOURS)]) for at, event in enumerate(shown)),
        *(line for at, event in enumerate(shown) for line in _name(at, event)),
    ]
    style = STYLE + "  .curve { fill: none; stroke-width: 2 }\n"
    return document((WIDTH, height), "Convergence per event", body, style=style)


def round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... times a power of ten.

    >>> [round_up(value) for value in (0.03, 0.9, 1.0, 1.3, 42.0)]
    [0.05, 1.0, 1.0, 2.0, 50.0]
    """
    power = 0.01
    while True:
        for step in STEPS:
            if step * power >= value * (1 - 1e-9):
                return round(step * power, 2)
        power *= 10


def _axes(scale: float) -> list[str]:
    parts = []
    for quarter in range(5):
        x, y = LEFT + PLOT_WIDTH * quarter / 4, TOP + PLOT_HEIGHT * (4 - quarter) / 4
        parts += [
            f'<path class="axis" d="M{LEFT} {y:.0f}H{LEFT + PLOT_WIDTH}"/>',
            text(LEFT - 8, y + 4, "soft", f"{25 * quarter} %", end=True),
            text(x + 8, TOP + PLOT_HEIGHT + 18, "soft", f"{scale * quarter / 4:g} s", end=True),
        ]
    words = "seconds after the event; share of nodes that show its final state"
    return [*parts, text(LEFT, TOP + PLOT_HEIGHT + 40, "soft", words)]


def _curve(event: EventSummary, scale: float, colour: str) -> str:
    whole = len(event.seconds) + len(event.missing)
    path = [f"M{LEFT} {TOP + PLOT_HEIGHT}"]
    for number, seconds in enumerate(event.seconds, 1):
        if number < len(event.seconds) and event.seconds[number] == seconds:
            continue  # one step for all that knew at once
        x = LEFT + PLOT_WIDTH * seconds / scale
        y = TOP + PLOT_HEIGHT * (1 - number / whole)
        path.append(f"H{x:.1f}V{y:.1f}")
    return f'<path class="curve" stroke="{colour}" d="{"".join(path)}"/>'


def _name(at: int, event: EventSummary) -> list[str]:
    x, y = LEFT + PLOT_WIDTH + LEGEND, TOP + 2 * LINE * at
    colour = COLOURS[at % len(COLOURS)]
    delays = event.delays
    figures = "" if delays is None else f"p50 {delays.p50:.2f} s, p99 {delays.p99:.2f} s"
    missing = f", {len(event.missing)} missing" if event.missing else ""
    return [
        f'<path class="curve" stroke="{colour}" d="M{x} {y + 6}h18"/>',
        text(x + 26, y + 10, "own", event.label),
        text(x + 26, y + 27, "soft", figures + missing),
    ]


# -- files -----------------------------------------------------------------------------------------


def save(svg: str, path: Path) -> None:
    """Write the picture as what the name of the file says: `.svg` or `.png`.

    Raises:
        NodeError: another kind of file, or no converter for PNG, or it failed.
        OSError: the file cannot be written.
    """
    if command := converter(path):
        _convert(svg, command)
    else:
        path.write_text(svg)


def converter(path: Path) -> list[str]:
    """The command that makes such a file of an SVG on its standard input; empty if it is one.

    Raises:
        NodeError: another kind of file, or no converter for PNG. Nothing else.
    """
    if path.suffix.lower() == ".svg":
        return []
    if path.suffix.lower() != ".png":
        raise NodeError(f"{path.name} is neither .svg nor .png", "choose one of the two")
    if rsvg := shutil.which("rsvg-convert"):
        return [rsvg, "--format", "png", "--output", str(path)]
    if cairo := shutil.which("cairosvg"):
        return [cairo, "-f", "png", "-o", str(path), "-"]
    why = "neither rsvg-convert nor cairosvg is installed"
    raise NodeError(why, "install librsvg2-bin, or write a .svg")


def _convert(svg: str, command: list[str]) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - found on the PATH, as a shell would
            command, input=svg.encode(), capture_output=True, timeout=CONVERT_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NodeError(f"{command[0]} does not end") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it failed"]
        raise NodeError(f"{Path(command[0]).name}: {said[-1]}", "write a .svg instead")
