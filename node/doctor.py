"""Compares the machines of a cluster and names the odd one out: a pure function of their facts.

    each check:   facts of all nodes --> ok     what is common to all
                                     --> note   they differ, and may
                                     --> odd    who differs, from what, and what to do

What should be alike is compared with what most have; of two values that are equally frequent the
one that this node has counts as usual. Some things are wrong by themselves, alike or not: a clock
that is off, forwarding that is off, a route that crosses the pod network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from node.machine import Fact, MachineFacts

CLOCK_OFF: Final = 2.0
"""Seconds. Certificates and tokens are good for hours and more; logs are hard to compare."""

LONGEST_SHOWN: Final = 60
"""Characters of a value that another node said."""


@dataclass(frozen=True, slots=True)
class Examined:
    """One node, and what it said of its machine.

    Attributes:
        name: of the node.
        local: whether it is this one.
        facts: None if it did not answer.
        why: then, what is known of it.
        ahead: seconds that its clock is ahead of this node's.
    """

    name: str
    local: bool
    facts: MachineFacts | None
    why: str = ""
    ahead: float = 0.0


class Finding(NamedTuple):
    """What came of one check.

    Attributes:
        check: its name, stable.
        state: `ok`, `note` or `odd`.
        nodes: who is odd, or differs; none where all is alike.
        what: one clause.
        fix: what to do about it; empty where there is nothing to do.
    """

    check: str
    state: str
    nodes: tuple[str, ...]
    what: str
    fix: str = ""


class _Alike(NamedTuple):
    """Something that should be the same on all nodes."""

    key: str
    fix: str
    may_differ: bool = False


_ALIKE: Final = (
    _Alike("version", "update it"),
    _Alike("mtu", "set the same mtu in config.toml"),
    _Alike("underlay_mtu", "pods do not notice; segments are smaller towards it", may_differ=True),
    _Alike("offloads", "see offload.failed in its log; it works, only slower", may_differ=True),
    _Alike("aes", "sessions with it use ChaCha20-Poly1305", may_differ=True),
    _Alike("guard", "install nftables there: muslin status says under guard what is missing"),
    _Alike("rp_filter", "see net.ipv4.conf.all.rp_filter there", may_differ=True),
    _Alike("bridge_filter", "see net.bridge.bridge-nf-call-iptables there", may_differ=True),
    _Alike("egress", "pods there reach the world otherwise", may_differ=True),
    _Alike("quarantine", "set the same quarantine in config.toml", may_differ=True),
    _Alike("kernel", "", may_differ=True),
)


def examine(nodes: Sequence[Examined]) -> list[Finding]:
    """All checks, in a stable order; `nodes` has the local one among them."""
    told = [node for node in nodes if node.facts is not None]
    return [
        _answers(nodes, told),
        _clocks(told),
        *(_alike(check, told) for check in _ALIKE),
        _forwarding(told),
        _listed(told, "ranges", "crossed", _crossing),
        _listed(told, "problems", "problems", _unwell),
    ]


def _answers(nodes: Sequence[Examined], told: Sequence[Examined]) -> Finding:
    silent = [node for node in nodes if node.facts is None]
    if not silent:
        return Finding("answers", "ok", (), f"{len(told)} of {len(nodes)} nodes")
    why = ", ".join(sorted({node.why for node in silent}))
    fix = "look at the daemons there, and at muslin ping to them"
    return Finding("answers", "odd", _names(silent), why, fix)


def _clocks(told: Sequence[Examined]) -> Finding:
    # Seen from here: if this node's own clock is off, so are all others, by the same.
    ahead = sorted(node.ahead for node in told) or [0.0]
    typical = min(ahead[(len(ahead) - 1) // 2], ahead[len(ahead) // 2], key=abs)
    off = [node for node in told if abs(node.ahead - typical) > CLOCK_OFF]
    if not off:
        widest = max((abs(node.ahead - typical) for node in told), default=0.0)
        return Finding("clock", "ok", (), f"within {max(widest, 0.001):.3f} s")
    what = ", ".join(f"{node.name} {_shift(node.ahead - typical)}" for node in off)
    return Finding("clock", "odd", _names(off), what, "let a time server set the clock there")


def _shift(seconds: float) -> str:
    return f"{abs(seconds):.1f} s {'ahead' if seconds > 0 else 'behind'}"


def _alike(check: _Alike, told: Sequence[Examined]) -> Finding:
    name = check.key.replace("_", "-")
    values = {node.name: _shown((node.facts or {}).get(check.key)) for node in told}
    counts = Counter(values.values())
    own = next((values[node.name] for node in told if node.local), "")
    usual = max(counts, key=lambda value: (counts[value], value == own), default="-")
    differ = sorted(node for node, value in values.items() if value != usual)
    if not differ:
        return Finding(name, "ok", (), usual)
    others = ", ".join(f"{node} has {values[node]}" for node in differ)
    state = "note" if check.may_differ else "odd"
    return Finding(name, state, tuple(differ), f"most have {usual}; {others}", check.fix)


def _forwarding(told: Sequence[Examined]) -> Finding:
    off = [
        node
        for node in told
        if node.facts and 0 in (node.facts.get("ip_forward"), node.facts.get("ip6_forward"))
    ]
    if not off:
        return Finding("forwarding", "ok", (), "on")
    fix = "something there switches it off again: see sysctl.d, and what manages the network"
    return Finding("forwarding", "odd", _names(off), "off", fix)


def _listed(
    told: Sequence[Examined],
    check: str,
    key: str,
    finding: Callable[[Mapping[str, str]], Finding],
) -> Finding:
    """A check of lists that should be empty."""
    found = {node.name: text for node in told if (text := _elements(node.facts, key))}
    return finding(found) if found else Finding(check, "ok", (), "none")


def _elements(facts: MachineFacts | None, key: str) -> str:
    held = (facts or {}).get(key)
    return _shown(held) if isinstance(held, list) and held else ""


def _crossing(found: Mapping[str, str]) -> Finding:
    what = ", ".join(f"{node} reaches {text} by itself" for node, text in sorted(found.items()))
    fix = "remove those routes, or give what made them another range"
    return Finding("ranges", "odd", tuple(sorted(found)), what, fix)


def _unwell(found: Mapping[str, str]) -> Finding:
    what = "; ".join(f"{node}: {text}" for node, text in sorted(found.items()))
    return Finding("problems", "odd", tuple(sorted(found)), what, "see muslin status there")


def _names(nodes: Sequence[Examined]) -> tuple[str, ...]:
    return tuple(sorted(node.name for node in nodes))


def _shown(value: Fact | None) -> str:
    """A value as people read it; another node's is its word, so it is short and printable."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ",".join(value) if isinstance(value, list) else str(value)
    text = "".join(_printable(text)) or "none"
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."


def _printable(text: str) -> Iterator[str]:
    return (one if one.isprintable() else "?" for one in text)
