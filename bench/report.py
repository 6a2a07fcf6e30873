"""Tables: what was measured, how it compares, and whether it is enough.

One kind of table, shown two ways: aligned for a terminal, or as Markdown for BENCHMARKS.md.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench.figures import BY_KEY, FIGURES, NOT_COMPARED, Figure
from bench.summary import Sample, Spread, Summary
from bench.targets import Bound, Verdict, verdicts

FORMAT: Final = 1
"""Of the JSON."""

NOTHING: Final = "-"

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a head; the first column says what a row is about."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """Aligned, for a terminal."""
        lines = [self.head, *self.rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(self.head))]
        shown = ["  ".join(_padded(line, widths)).rstrip() for line in lines]
        return "\n".join([self.title, *shown])

    def markdown(self) -> str:
        """With a heading of the third order."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        shown = ["| " + " | ".join(line) + " |" for line in lines]
        return "\n".join([f"### {self.title}", "", *shown])


def _padded(line: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for at, (cell, width) in enumerate(zip(line, widths, strict=True)):
        yield cell.rjust(width) if at else cell.ljust(width)


def tables(summary: Summary, titles: Mapping[str, str]) -> list[Table]:
    """All tables of a run.

    Args:
        summary: of the run.
        titles: of contestants, by name.
    """
    found = []
    for underlay in summary.underlays:
        found.append(_measured(summary, underlay, titles))
        if "muslin" in summary.contestants and len(summary.contestants) > 1:
            found.append(_compared(summary, underlay, titles))
    judged = list(verdicts(summary))
    if judged:
        found.append(_judged(judged, titles))
    return found


def _measured(summary: Summary, underlay: str, titles: Mapping[str, str]) -> Table:
    rows = []
    for figure in FIGURES:
        cells = [summary.of(underlay, name, figure.key) for name in summary.contestants]
        if any(cells):
            rows.append([f"{figure.title}, {figure.unit}", *(_shown(figure, c) for c in cells)])
    head = ["median (lowest to highest)", *(titles[name] for name in summary.contestants)]
    return Table(f"Underlay {underlay}: what was measured", head, rows)


def _shown(figure: Figure, cell: Spread | None) -> str:
    if cell is None:
        return NOTHING
    if cell.rounds == 1:
        return figure.show(cell.median)
    return f"{figure.show(cell.median)} ({figure.show(cell.lowest)} to {figure.show(cell.highest)})"


def _compared(summary: Summary, underlay: str, titles: Mapping[str, str]) -> Table:
    others = [name for name in summary.contestants if name != "muslin"]
    rows = []
    for figure in FIGURES:
        cells = [summary.ratio(underlay, "muslin", name, figure.key) for name in others]
        if any(cells) and figure.key not in NOT_COMPARED:
            better = "more is better" if figure.more_is_better else "less is better"
            rows.append([f"{figure.title} ({better})", *map(_ratio, cells)])
    head = ["ratio of medians (lowest to highest in a round)", *(titles[name] for name in others)]
    return Table(f"Underlay {underlay}: Muslin / contestant", head, rows)


def _ratio(cell: Spread | None) -> str:
    if cell is None:
        return NOTHING
    if cell.rounds == 1:
        return f"{cell.median:.2f}"
    return f"{cell.median:.2f} ({cell.lowest:.2f} to {cell.highest:.2f})"


def _judged(judged: Sequence[Verdict], titles: Mapping[str, str]) -> Table:
    names = list(dict.fromkeys(verdict.contestant for verdict in judged))
    cells = {(verdict.target, verdict.contestant): verdict for verdict in judged}
    rows = [
        [
            target.title,
            *(_verdict(cells[target, name]) if (target, name) in cells else NOTHING
              for name in names),
        ]
        for target in dict.fromkeys(verdict.target for verdict in judged)
    ]  # fmt: skip
    return Table("Targets: Muslin / contestant", ["", *(titles[name] for name in names)], rows)


def _verdict(verdict: Verdict) -> str:
    sign = ">=" if BY_KEY[verdict.target.figure].more_is_better else "<="
    ratio = NOTHING if verdict.ratio is None else f"{verdict.ratio.median:.2f}"
    return f"{ratio}, {_bound(sign, verdict.bound)}: {verdict.outcome}"


def _bound(sign: str, bound: Bound) -> str:
    goal = f", goal {bound.goal:g}" if bound.goal is not None else ""
    return f"{sign} {bound.target:g}{goal}"


# -- what it was measured on, and everything as JSON -----------------------------------------------


def machine() -> dict[str, str]:
    """What a run depends on beside the code."""
    return {
        "kernel": platform.release(),
        "cores": str(os.cpu_count()),
        "processor": _processor(_read("/proc/cpuinfo")),
        "python": platform.python_version(),
        "congestion control": _read("/proc/sys/net/ipv4/tcp_congestion_control").strip(),
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""


def _processor(cpuinfo: str) -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def heading(on: Mapping[str, str], rounds: int, seconds: int) -> str:
    """One line on how the figures came about."""
    return (
        f"Linux {on['kernel']}, {on['cores']} cores of {on['processor']}, Python {on['python']}; "
        f"congestion control {on['congestion control']} (the kernel's default); medians of "
        f"{rounds} interleaved rounds, {seconds} s per measurement"
    )


def document(
    samples: Sequence[Sample],
    *,
    on: Mapping[str, str],
    seconds: int,
    contestants: Mapping[str, Mapping[str, object]],
) -> Json:
    """Everything of a run, for a file. `bench.compare.read` reads it back.

    Args:
        samples: all figures.
        on: from `machine`.
        seconds: per measurement.
        contestants: title, version and settings of each, by name.
    """
    summary = Summary(samples)
    medians = {
        underlay: {
            name: {
                figure.key: cell._asdict()
                for figure in FIGURES
                if (cell := summary.of(underlay, name, figure.key)) is not None
            }
            for name in summary.contestants
        }
        for underlay in summary.underlays
    }
    judged = [
        {
            "target": verdict.target.title,
            "contestant": verdict.contestant,
            "bound": verdict.bound._asdict(),
            "ratio": verdict.ratio._asdict() if verdict.ratio else None,
            "outcome": str(verdict.outcome),
        }
        for verdict in verdicts(summary)
    ]
    return {
        "format": FORMAT,
        "machine": dict(on),
        "seconds": seconds,
        "contestants": {name: dict(each) for name, each in contestants.items()},
        "figures": {figure.key: f"{figure.title}, {figure.unit}" for figure in FIGURES},
        "medians": medians,
        "targets": judged,
        "samples": [asdict(sample) for sample in samples],
    }


def say(line: str) -> None:
    """Progress, for people."""
    print(f"   {line}", file=sys.stderr, flush=True)
