"""A scenario: a cluster, its network, what happens to it and what is expected, from a TOML file.

    title = "Two halves agree again"
    until = 60.0                        virtual seconds

    [cluster]    nodes, ranges, clocks          (`ClusterSpec`)
    [link]       between any two machines       (`overlay.sim.link.Link`, or a preset of it)
    [[links]]    between two groups             (`LinksSpec`)
    [groups]     names for selections           (`overlay.sim.selection`)
    [[nat]]      who is behind one              (`NatSpec`)
    [timing]     of every node                  (`overlay.config.Timing`)
    [[event]]    at = 10.0, do = "crash", ...   (`EventSpec`, `overlay.sim.acts`)
    [[expect]]   what makes the run succeed     (`Expectation`)

A file says nothing that a reader of these classes could not look up: keys are field names. Unknown
keys, wrong types and values out of range are refused with the way to them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from typing import Final

from overlay.config import Limits, Timing
from overlay.errors import ConfigError
from overlay.sim.acts import ACTS
from overlay.sim.link import Link
from overlay.sim.nat import TIMEOUT, NatKind
from overlay.sim.selection import Selection
from overlay.sim.spec import LinkSpec
from overlay.sim.stage import Act
from overlay.sim.typed import build

FOUNDER: Final = "node1"

BEGIN: Final = "begin"
"""Label of what happens without being said: the nodes of the cluster start."""


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """The cluster that is there when the clock starts."""

    nodes: int = 8
    """How many nodes, the founder included: node1, node2, ..."""
    seeds: int = 1
    """Members that others know when they start; node1, node2, ... Each later node is told about
    one of these in turn and learns the rest from it."""
    over: float = 0.0
    """Seconds within which the nodes start, one after the other."""
    tokens: bool = False
    """Whether nodes join with tokens, all through the founder; else certificates are made
    offline."""
    cidr: str = "10.244.0.0/16"
    block_prefix: int = 24
    clock_skew: float = 0.0
    """Wall clocks are wrong by up to so many seconds, either way."""
    clock_drift: float = 0.0
    """Monotonic clocks run fast or slow by up to so many parts per million."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: a value is out of its range. Nothing else.
        """
        if not 1 <= self.seeds <= self.nodes:
            why = f"must be 1 to the number of nodes, {self.nodes}, not {self.seeds}"
            raise ConfigError(why, "seeds")
        if min(self.over, self.clock_skew, self.clock_drift) < 0.0:
            raise ConfigError("durations and deviations cannot be negative", "over")
        if self.clock_drift >= 1e6:
            raise ConfigError("a clock that far off would run backwards", "clock_drift")
        try:
            IPv4Network(self.cidr)
        except ValueError as error:
            raise ConfigError(str(error), "cidr") from error


@dataclass(frozen=True, slots=True)
class LinksSpec:
    """Links between two groups of machines, or within one that stands on both sides."""

    between: tuple[Selection, ...]
    link: LinkSpec

    def __post_init__(self) -> None:
        """Check the sides.

        Raises:
            ConfigError: there are not two. Nothing else.
        """
        if len(self.between) != 2:
            raise ConfigError("a link has two ends", "between")


@dataclass(frozen=True, slots=True)
class NatSpec:
    """Machines behind one NAT."""

    nodes: Selection
    kind: NatKind = NatKind.SYMMETRIC
    timeout: float = TIMEOUT
    """Seconds of silence after which it forgets."""

    def __post_init__(self) -> None:
        """Check the range.

        Raises:
            ConfigError: it would remember nothing. Nothing else.
        """
        if self.timeout <= 0.0:
            raise ConfigError("must be more than 0", "timeout")


@dataclass(frozen=True, slots=True)
class EventSpec:
    """Something that happens, once or again and again."""

    at: float
    """Virtual seconds."""
    do: str
    act: Act
    label: str = ""
    """What the result calls it; `do` unless given."""
    every: float = 0.0
    """Seconds between repetitions."""
    times: int = 1
    """How often; each time draws anew whom it hits."""

    @property
    def name(self) -> str:
        """What the result calls it."""
        return self.label or self.do


@dataclass(frozen=True, slots=True)
class Expectation:
    """What must be true in the end. Every key that is given must hold.

    That invariants hold is always expected.
    """

    event: str = ""
    """Label of the events that `within`, `p50` and `p99` are about."""
    within: float | None = None
    """Seconds until every node shows the event's final state."""
    p50: float | None = None
    p99: float | None = None
    """Seconds until that share of all nodes does."""
    false_deaths: int | None = None
    """Healthy nodes that were declared dead by somebody who could reach them, at most."""
    deaths: int | None = None
    """Nodes that were declared dead at all, at most."""
    steady_bytes: float | None = None
    """Bytes per node and second while nothing happens, at most."""
    peak_bytes: float | None = None
    """Bytes of any node in any second, at most."""
    agree: bool = False
    """Whether all live nodes hold the same items in the end."""

    def __post_init__(self) -> None:
        """Check that it is about something.

        Raises:
            ConfigError: times are expected of no event, or of an event nothing, or nothing at all.
                Nothing else.
        """
        timed = (self.within, self.p50, self.p99) != (None, None, None)
        counts = (self.false_deaths, self.deaths, self.steady_bytes, self.peak_bytes)
        if not (self.event or timed or self.agree or counts != (None,) * len(counts)):
            raise ConfigError("say what is expected", "agree")
        if timed and not self.event:
            raise ConfigError("say of which event", "event")
        if self.event and not timed:
            raise ConfigError("say within how many seconds", "within")


@dataclass(frozen=True, slots=True)
class Scenario:
    """All of it."""

    title: str
    until: float
    """Virtual seconds that it takes."""
    seed: int = 1
    cluster: ClusterSpec = field(default_factory=ClusterSpec)
    link: LinkSpec = field(default_factory=lambda: LinkSpec(Link()))
    links: tuple[LinksSpec, ...] = ()
    groups: Mapping[str, Selection] = field(default_factory=dict)
    nat: tuple[NatSpec, ...] = ()
    timing: Timing = field(default_factory=Timing)
    limits: Limits = field(default_factory=Limits)
    event: tuple[EventSpec, ...] = ()
    expect: tuple[Expectation, ...] = ()

    def scaled(self, nodes: int) -> Scenario:
        """The same with another number of nodes.

        Raises:
            ConfigError: too few for its seeds. Nothing else.
        """
        return replace(self, cluster=replace(self.cluster, nodes=nodes))


def parse(text: str) -> Scenario:
    """A scenario from the text of a TOML file.

    Raises:
        ConfigError: it is none; the message names the key. Nothing else.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}") from error
    events = raw.get("event", [])
    if not isinstance(events, list):
        raise ConfigError("must be a list of tables: [[event]]", "event")
    raw["event"] = [_with_act(event, f"event[{number}]") for number, event in enumerate(events, 1)]
    scenario = build(Scenario, raw)
    _check_times(scenario)
    _check_labels(scenario)
    return scenario


_COMMON: Final = ("at", "do", "label", "every", "times")


def _with_act(raw: object, path: str) -> dict[str, object]:
    """An event's table, with what belongs to its act in a table of its own."""
    if not isinstance(raw, dict):
        raise ConfigError("must be a table", path)
    do = raw.get("do")
    kind = ACTS.get(do) if isinstance(do, str) else None
    if kind is None:
        raise ConfigError(f"must be one of {', '.join(ACTS)}", f"{path}.do")
    if "act" in raw:
        raise ConfigError("no such key", f"{path}.act")
    rest = {key: value for key, value in raw.items() if key not in _COMMON}
    act = build(kind, rest, path)
    return {**{key: raw[key] for key in _COMMON if key in raw}, "act": act}


def _check_labels(scenario: Scenario) -> None:
    labels = {BEGIN, *(event.name for event in scenario.event)}
    for number, one in enumerate(scenario.expect, 1):
        if one.event and one.event not in labels:
            path = f"expect[{number}].event"
            raise ConfigError(f"there is no event {one.event}", path)


def _check_times(scenario: Scenario) -> None:
    """Everything happens: what is expected of an event that never does would always be met."""
    if scenario.until <= 0.0:
        raise ConfigError("must be more than 0", "until")
    for number, event in enumerate(scenario.event, 1):
        if event.at < 0.0 or event.every < 0.0 or event.times < 1:
            path = f"event[{number}].at"
            raise ConfigError("times and counts cannot be negative", path)
        if event.times > 1 and not event.every:
            path = f"event[{number}].every"
            raise ConfigError(f"say how far apart the {event.times} times are", path)
        last = event.at + (event.times - 1) * event.every
        if last >= scenario.until:
            path = f"event[{number}].at"
            why = f"the last time is at {last:g} s, and the end (until) at {scenario.until:g} s"
            raise ConfigError(why, path)
