"""The comparison: run it, or read an earlier run back, then show tables, JSON and picture."""

from __future__ import annotations

import json
import shutil
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.contestants import Contestant, Muslin, NoOverlay, Vxlan
from bench.peers import Nebula, Tinc, WireguardGo
from bench.picture import picture
from bench.report import FORMAT, document, heading, machine, say, tables
from bench.rounds import Plan, minutes, run_plan
from bench.summary import Sample, Summary
from bench.topology import LAB, Underlay
from bench.workloads import BY_NAME, WORKLOADS, Workload
from node.errors import NodeError

CONTESTANTS: Final[tuple[Contestant, ...]] = (
    NoOverlay(),
    Vxlan(),
    WireguardGo(),
    Nebula(),
    Tinc(),
    Muslin(),
)

ROUNDS: Final = 5
SECONDS: Final = 2

Document = Mapping[str, Any]


def add_options(parser: ArgumentParser) -> None:
    """The options of the comparison."""
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument(
        "--seconds", type=int, default=SECONDS, help=f"per measurement (default {SECONDS})"
    )
    parser.add_argument("--only", metavar="NAMES", help="contestants, with commas; see --list")
    parser.add_argument("--workloads", metavar="NAMES", help="the same for workloads")
    parser.add_argument("--underlay", choices=["veth", "wire", "both"], default="both")
    parser.add_argument(
        "--lab", default=LAB, metavar="NAME", help=f"name of the lab it builds (default {LAB})"
    )
    parser.add_argument("--list", action="store_true", help="name contestants and workloads, end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw bars there")
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="measure nothing: show that JSON"
    )


def compare(options: Namespace) -> None:
    """Do what the options say.

    Raises:
        NodeError: it cannot, for a reason that one line says.
    """
    if options.list:
        print(listing())
        return
    found = read(options.source) if options.source is not None else measure(options)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    show(found, options)


def listing() -> str:
    """Contestants and workloads by name."""
    lines = ["contestants:"]
    for each in CONTESTANTS:
        secrecy = "encrypted" if each.encrypted else "not encrypted"
        lines.append(f"  {each.name:13} {each.title}, MTU {each.mtu}, {secrecy}")
    lines.append("workloads:")
    for workload in WORKLOADS:
        where = " and ".join(sorted(workload.underlays))
        lines.append(f"  {workload.name:13} {workload.title} ({where})")
    return "\n".join(lines)


def measure(options: Namespace) -> Document:
    """Run the comparison; returns its document."""
    plan = plan_of(options)
    for contestant in plan.contestants:
        contestant.require(shutil.which)
    say(f"about {minutes(plan.cost())} minutes of measurements")
    on = machine()
    samples = run_plan(plan, say, options.lab)
    described = {
        each.name: {
            "title": each.title,
            "version": each.version(),
            "mtu": each.mtu,
            "encrypted": each.encrypted,
        }
        for each in plan.contestants
    }
    return document(samples, on=on, seconds=plan.seconds, contestants=described)


def plan_of(options: Namespace) -> Plan:
    """What the options ask for.

    Raises:
        NodeError: an unknown name, or a number below 1. Nothing else.
    """
    if options.rounds < 1 or options.seconds < 1:
        raise NodeError("--rounds and --seconds must be at least 1")
    known = {each.name: each for each in CONTESTANTS}
    contestants = [known[name] for name in chosen(options.only, list(known), "contestant")]
    names = chosen(options.workloads, list(BY_NAME), "workload")
    wanted = list(Underlay) if options.underlay == "both" else [Underlay(options.underlay)]
    by_default = options.workloads is None
    workloads: dict[Underlay, Sequence[Workload]] = {
        underlay: [
            BY_NAME[name] for name in names if not by_default or underlay in BY_NAME[name].underlays
        ]
        for underlay in wanted
    }
    return Plan(contestants, workloads, options.rounds, options.seconds)


def chosen(text: str | None, known: Sequence[str], what: str) -> list[str]:
    """The names in a list with commas, in the order of `known`; all of them when there is none.

    Raises:
        NodeError: one of them is unknown. Nothing else.
    """
    if text is None:
        return list(known)
    wanted = {name.strip() for name in text.split(",") if name.strip()}
    for name in sorted(wanted - set(known)):
        raise NodeError(f"there is no {what} {name!r}", f"choose from {', '.join(known)}")
    return [name for name in known if name in wanted]


def read(path: Path) -> Document:
    """The document of an earlier run.

    Raises:
        NodeError: it cannot be read, or is something else. Nothing else.
    """
    try:
        found: Document = json.loads(path.read_text("utf-8"))
        if found["format"] == FORMAT:
            return found
    except OSError as error:
        raise NodeError.of(f"reading {path}", error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise NodeError(f"{path} is not a run of this benchmark") from error
    raise NodeError(f"{path} was written by another version of this benchmark")


def show(found: Document, options: Namespace) -> None:
    """Print the tables of a run, and draw its picture if that is wanted."""
    samples = [Sample(**each) for each in found["samples"]]
    summary = Summary(samples)
    titles = {name: str(each["title"]) for name, each in found["contestants"].items()}
    note = heading(found["machine"], summary.rounds, found["seconds"])
    versions = "; ".join(
        f"{titles[name]}: {each['version']}, MTU {each['mtu']}"
        + ("" if each["encrypted"] else ", not encrypted")
        for name, each in found["contestants"].items()
    )
    made = tables(summary, titles)
    shown = [table.markdown() if options.markdown else table.text() for table in made]
    print("\n\n".join([f"{note}.", f"{versions}.", *shown]))
    if options.picture is not None:
        plain = [
            titles[name] for name, each in found["contestants"].items() if not each["encrypted"]
        ]
        on, how = note.split("; ", 1)
        notes = [on, how + (f"; not encrypted: {', '.join(plain)}" if plain else "")]
        options.picture.write_text(picture(summary, titles, notes), "utf-8")
