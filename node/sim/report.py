"""The outcome of a simulation as a table for people and as JSON for programs. Pure.

Seconds are virtual, from an event to the moment at which a node shows its final state; exact to
0.05 s. Rates are per node: bytes include IP and UDP headers, a message is a datagram.
"""

from __future__ import annotations

from collections.abc import Sequence

from overlay.sim.metrics import Second
from overlay.sim.outcome import EventSummary, Outcome

Json = dict[str, object]

HEADERS = ("event", "at", "times", "nodes", "p50", "p99", "max", "missing")


def rows(outcome: Outcome) -> list[list[str]]:
    """One row per event; cells as in `HEADERS`, empty where an event has no final state."""
    return [_row(event) for event in outcome.events]


def _row(event: EventSummary) -> list[str]:
    delays = event.delays
    times = [] if delays is None else [delays.p50, delays.p99, delays.longest]
    return [
        event.label,
        f"{event.at:.1f}",
        str(event.times),
        str(len(event.seconds)) if delays or event.missing else "",
        *([f"{seconds:.2f}" for seconds in times] or ["", "", ""]),
        str(len(event.missing)) if event.missing else "",
    ]


def facts(outcome: Outcome, real: float) -> list[tuple[str, str]]:
    """What else there is to say, as pairs of a word and a clause.

    Args:
        outcome: of the run.
        real: seconds that it took on the wall.
    """
    deaths = outcome.deaths
    false = ", ".join(sorted(deaths.false_subjects)[:5]) or "none"
    held = f"BROKEN: {outcome.broken}" if outcome.broken else "hold"
    return [
        ("steady", _rate(outcome.steady)),
        ("peak", _rate(outcome.peak, peak=True)),
        ("deaths", f"{len(deaths.subjects)} nodes, in {deaths.reports} reports"),
        ("false deaths", f"{len(deaths.false_subjects)} nodes: {false}"),
        ("refused", f"{outcome.refusals} requests"),
        ("invariants", f"checked {outcome.checks} times, {held}"),
        ("agreement", "the same items everywhere" if outcome.agree else "items differ"),
        ("time", f"{outcome.now:.0f} s virtual in {real:.1f} s, {outcome.nodes} nodes live"),
    ]


def _rate(second: Second | None, *, peak: bool = False) -> str:
    if second is None:
        return "no such second"
    mean = f"{second.bytes:.0f} B/s and {second.messages:.1f} messages/s per node"
    return f"{mean}, {second.busiest:.0f} B/s the busiest, at {second.at:.0f} s" if peak else mean


def as_json(outcome: Outcome, failures: Sequence[str], about: Json) -> Json:
    """The answer for programs; keys never change.

    Args:
        outcome: of the run.
        failures: expectations that were not met.
        about: which run this was.
    """
    deaths = outcome.deaths
    return {
        **about,
        "now": round(outcome.now, 6),
        "nodes": outcome.nodes,
        "events": [_event(event) for event in outcome.events],
        "steady": _second(outcome.steady),
        "peak": _second(outcome.peak),
        "deaths": sorted(deaths.subjects),
        "false_deaths": sorted(deaths.false_subjects),
        "death_reports": deaths.reports,
        "refused": outcome.refusals,
        "invariants": {"checks": outcome.checks, "broken": outcome.broken or None},
        "agree": outcome.agree,
        "failures": list(failures),
    }


def _event(event: EventSummary) -> Json:
    delays = event.delays
    return {
        "event": event.label,
        "at": round(event.at, 6),
        "times": event.times,
        "targets": event.targets,
        "nodes": len(event.seconds),
        "p50": None if delays is None else round(delays.p50, 6),
        "p99": None if delays is None else round(delays.p99, 6),
        "max": None if delays is None else round(delays.longest, 6),
        "missing": list(event.missing),
    }


def _second(second: Second | None) -> Json | None:
    if second is None:
        return None
    return {
        "at": round(second.at, 6),
        "bytes": round(second.bytes, 1),
        "messages": round(second.messages, 2),
        "busiest": second.busiest,
    }
