r"""What a node shows of itself, as metrics in text: for Prometheus and whatever else reads that.

    # TYPE muslin_ledger_drops counter
    # HELP muslin_ledger_drops What was read and neither sent nor kept, by reason.
    muslin_ledger_drops_total{reason="no_route"} 2
    # EOF

The text is OpenMetrics. It keeps to what the older Prometheus format has as well, so the same text
may be a file for node_exporter's textfile collector: no type that is not in both, no timestamps.

Why no library makes it: what one has beside thirty lines of text (registries, processes, an HTTP
server) would run inside the daemon and serve nothing, for the values are all in the snapshot. What
is written is read back in tests by a parser of others.

References:
    OpenMetrics 1.0.0 (Prometheus project, 2020), sections "ABNF" and "Text Format".
    Prometheus documentation, "Exposition formats": text format 0.0.4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from node.control.present import DaemonFacts
from overlay.views import NodeState, Snapshot

SHOWN_ID: Final = 16
"""Hex digits of a node's id in labels. A name may be given again when its node has left."""

PREFIX: Final = "muslin_"

Labels = Mapping[str, str]
Sample = tuple[Labels, float]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    Attributes:
        name: without the prefix; with the unit at its end, if it has one.
        kind: `gauge`, or `counter` for what only grows while the daemon runs.
        help: one sentence.
        samples: of a snapshot and the facts of the daemon, each with labels of its own.
        unit: as OpenMetrics names it; empty for a number.
    """

    name: str
    kind: str
    help: str
    samples: Callable[[Snapshot, DaemonFacts], Iterable[Sample]]
    unit: str = ""


def exposition(snapshot: Snapshot, facts: DaemonFacts) -> str:
    """All metrics of a node, as OpenMetrics text with its end mark."""
    lines: list[str] = []
    for family in FAMILIES:
        lines += _family(family, family.samples(snapshot, facts))
    return "\n".join([*lines, "# EOF", ""])


def _family(family: Family, samples: Iterable[Sample]) -> Iterator[str]:
    name = PREFIX + family.name
    yield f"# TYPE {name} {family.kind}"
    if family.unit:
        yield f"# UNIT {name} {family.unit}"
    yield f"# HELP {name} {family.help}"
    suffix = "_total" if family.kind == "counter" else ""
    for labels, value in samples:
        yield f"{name}{suffix}{_labels(labels)} {value!r}"


def _labels(labels: Labels) -> str:
    shown = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
    return f"{{{shown}}}" if shown else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _one(value: float) -> list[Sample]:
    return [({}, value)]


def _by(label: str, counts: Mapping[str, int]) -> list[Sample]:
    return [({label: key}, count) for key, count in counts.items()]


def _info(snapshot: Snapshot, facts: DaemonFacts) -> list[Sample]:
    what = {"node": snapshot.name, "cluster": snapshot.cluster, "version": facts.version}
    return [(what, 1)]


def _expiries(snapshot: Snapshot, facts: DaemonFacts) -> Iterator[Sample]:
    """Of the members; negative for one that has expired."""
    wall = facts.epoch + snapshot.now
    for node in snapshot.nodes:
        if node.expires is not None and not node.local:
            labels = {"node": node.name, "id": node.id.hex()[:SHOWN_ID]}
            yield labels, round(node.expires - wall, 3)


def _states(snapshot: Snapshot, _: DaemonFacts) -> list[Sample]:
    return _by("state", {s: sum(node.state is s for node in snapshot.nodes) for s in NodeState})


def _problems(snapshot: Snapshot, facts: DaemonFacts) -> list[Sample]:
    return _by("code", Counter(one.code for one in (*snapshot.problems, *facts.problems)))


def _gossip(snapshot: Snapshot, _: DaemonFacts) -> list[Sample]:
    return _by("event", {key: n for key, n in snapshot.gossip.items() if key != "awareness"})


def _bytes(direction: str) -> Callable[[Snapshot, DaemonFacts], Iterator[Sample]]:
    def samples(snapshot: Snapshot, _: DaemonFacts) -> Iterator[Sample]:
        for session in snapshot.sessions:
            labels = {"node": session.node, "id": session.id[:SHOWN_ID]}
            yield labels, session.tx_bytes if direction == "tx" else session.rx_bytes

    return samples


FAMILIES: Final = (
    Family("node_info", "gauge", "Always 1; its labels say which node this is.", _info),
    Family(
        "start_time_seconds",
        "gauge",
        "When the daemon started, in Unix seconds.",
        lambda _, facts: _one(round(facts.epoch + facts.started, 3)),
        unit="seconds",
    ),
    Family(
        "certificate_expiry_seconds",
        "gauge",
        "Time until this node's certificate ends. It is renewed when a third of its life is left.",
        lambda shot, facts: _one(round(shot.expires - facts.epoch - shot.now, 3)),
        unit="seconds",
    ),
    Family(
        "member_certificate_expiry_seconds",
        "gauge",
        "Time until the certificates of the other members end, as this node knows them.",
        _expiries,
        unit="seconds",
    ),
    Family("nodes", "gauge", "Nodes that this one knows, by state.", _states),
    Family("problems", "gauge", "What muslin status calls a problem, by code.", _problems),
    Family(
        "pods",
        "gauge",
        "Pods of this node.",
        lambda shot, _: _one(sum(pod.local for pod in shot.pods)),
    ),
    Family("routes", "gauge", "Prefixes that are routed.", lambda shot, _: _one(len(shot.routes))),
    Family("sessions", "gauge", "Sessions.", lambda shot, _: _one(len(shot.sessions))),
    Family(
        "session_sent_bytes",
        "counter",
        "Bytes sent to a peer, sealed; from zero again with each session.",
        _bytes("tx"),
        unit="bytes",
    ),
    Family(
        "session_received_bytes",
        "counter",
        "Bytes received from a peer, sealed; from zero again with each session.",
        _bytes("rx"),
        unit="bytes",
    ),
    Family(
        "ledger_in",
        "counter",
        "Packets and datagrams that were read.",
        lambda shot, _: _one(shot.ledger.received),
    ),
    Family(
        "ledger_out",
        "counter",
        "Of these, what was sent on or served its purpose.",
        lambda shot, _: _one(shot.ledger.sent),
    ),
    Family(
        "ledger_queued",
        "gauge",
        "Of these, what waits.",
        lambda shot, _: _one(shot.ledger.queued),
    ),
    Family(
        "ledger_drops",
        "counter",
        "Of these, what was dropped, by reason.",
        lambda shot, _: _by("reason", shot.ledger.drops),
    ),
    Family(
        "guard_drops",
        "counter",
        "What pods sent and the packet filter dropped, by reason.",
        lambda _, facts: _by("reason", facts.guard.drops),
    ),
    Family(
        "store_items",
        "gauge",
        "Gossiped items that this node holds.",
        lambda shot, _: _one(shot.items),
    ),
    Family(
        "gossip_awareness",
        "gauge",
        "How slow this node seems to be to itself, 0 (well) to 8.",
        lambda shot, _: _one(shot.gossip.get("awareness", 0)),
    ),
    Family("gossip_events", "counter", "What should not happen often among members.", _gossip),
    Family(
        "lane_cpu_seconds",
        "counter",
        "Processor time of the processes that carry packets.",
        lambda _, facts: [({"lane": str(one.lane)}, one.cpu_seconds) for one in facts.lanes],
        unit="seconds",
    ),
    Family(
        "lane_restarts",
        "counter",
        "How often such a process was replaced.",
        lambda _, facts: [({"lane": str(one.lane)}, one.restarts) for one in facts.lanes],
    ),
)
"""Every metric, in the order of the text. Names are promises."""
