"""Plays a scenario: makes the world, lets the events happen, watches, and judges.

    Scenario --Play--> World, one Tracker per event, one sample of traffic per second
                 '---> Outcome

Twenty times per virtual second every node is asked the questions that are open (`goals`), so a time
in the outcome is exact to `LOOK`. Invariants are checked as often as the size of the cluster
allows. All randomness of the play comes from the seed: the same scenario, seed and number of nodes
play the same, to the last byte of the trace.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from ipaddress import IPv4Network
from typing import Final

from overlay.config import Settings
from overlay.errors import CapacityError, ConfigError, OverlayError, RefusedError
from overlay.sim.deaths import Deaths
from overlay.sim.faults import Power
from overlay.sim.goals import routes_to
from overlay.sim.inspector import InvariantError
from overlay.sim.localtime import Clocks
from overlay.sim.machine import Machine
from overlay.sim.metrics import Rates, Tracker
from overlay.sim.outcome import Happened, Outcome, summaries
from overlay.sim.scenario import BEGIN, FOUNDER, EventSpec, Scenario
from overlay.sim.selection import Pool, Selection
from overlay.sim.world import LOOK_INTERVAL, World

SAMPLE: Final = 1.0
"""Seconds between samples of traffic, and between calls of `on_progress`."""

SETTLE: Final = 5.0
"""Seconds after an event's last effect that do not count as steady yet."""

OnProgress = Callable[["Play"], None]


def _any(_: Machine) -> bool:
    return True


class Play:
    """One run of a scenario. See `overlay.sim.stage.Stage` for what acts use of it.

    Args:
        scenario: what to play.
        seed: of everything random; the scenario's own unless given.
        keep_datagrams: whether the trace keeps datagrams.

    Raises:
        ConfigError: the scenario is about nodes that there are not. Later, too, from `run`.
    """

    def __init__(
        self, scenario: Scenario, *, seed: int | None = None, keep_datagrams: bool = False
    ) -> None:
        spec = scenario.cluster
        self.scenario = scenario
        self.seed = scenario.seed if seed is None else seed
        self.rng = random.Random(f"{self.seed}/play")
        self.images: dict[str, Mapping[bytes, bytes]] = {}
        self.groups: dict[str, set[str]] = {}
        self.happened: list[Happened] = []
        self.rates = Rates()
        self.refusals = 0
        self._number = 0
        names = [self._next_name() for _ in range(spec.nodes)]
        self.world = World(
            self.seed,
            settings=Settings(timing=scenario.timing, limits=scenario.limits),
            link=scenario.link.link,
            founder=FOUNDER,
            cidr=IPv4Network(spec.cidr),
            block_prefix=spec.block_prefix,
            keep_datagrams=keep_datagrams,
        )
        self.deaths = Deaths(self.world)
        self._prepare(names)
        self._begin(names)
        for event in scenario.event:
            for time in range(event.times):
                at = event.at + time * event.every
                self.world.clock.at(at, partial(self._happen, event))

    # -- before the first event --------------------------------------------------------------------

    def _prepare(self, names: list[str]) -> None:
        """Groups, NATs, links and clocks, of machines that are not there yet."""
        scenario, world = self.scenario, self.world
        pool = Pool(names, founder=FOUNDER)
        for group, selection in scenario.groups.items():
            self.groups[group] = set(selection.choose(pool, self.rng))
        pool = Pool(names, self.groups, FOUNDER)
        for number, spec in enumerate(scenario.nat, 1):
            nat = world.add_nat(f"nat{number}", spec.kind, spec.timeout)
            world.nats |= dict.fromkeys(spec.nodes.choose(pool, self.rng), nat)
        if FOUNDER in world.nats:
            raise ConfigError(f"{FOUNDER} is who all others know: it cannot be behind one", "nat")
        for links in scenario.links:
            one, other = (self._side(side, pool) for side in links.between)
            world.underlay.set_links(one, other, links.link.link)
        for name in names:
            self._set_clocks(name)

    def _side(self, side: Selection, pool: Pool) -> set[str]:
        """One end of links: a group as such, so that who joins it later is among them."""
        if len(side.terms) == 1 and side.terms[0] in self.groups:
            return self.groups[str(side.terms[0])]
        return set(side.choose(pool, self.rng))

    def _set_clocks(self, name: str) -> None:
        spec = self.scenario.cluster
        if name != FOUNDER and (spec.clock_skew or spec.clock_drift):
            drift = self.rng.uniform(-spec.clock_drift, spec.clock_drift)
            skew = self.rng.uniform(-spec.clock_skew, spec.clock_skew)
            start = self.rng.uniform(0.0, 1e6)
            self.world.clocks[name] = Clocks(start, 1.0 + drift / 1e6, skew)

    def _begin(self, names: list[str]) -> None:
        """The nodes that are there from the start, and the event that they are."""
        spec = self.scenario.cluster
        step = spec.over / len(names)
        for number, name in enumerate(names[1:], 1):
            # The seeds know the founder, all others know the seeds: those must be there first.
            at = 0.0 if number < spec.seeds else number * step
            self.world.clock.at(at, partial(self.add, name, token=spec.tokens))
        begun = self._track(BEGIN, spec.over)
        for name in names:
            find = partial(self.world.machines.get, name)
            begun.tracker.goals.append(routes_to(find))
        begun.tracker.expect(names)
        begun.tracker.open([], spec.over)

    # -- the stage ---------------------------------------------------------------------------------

    def choose(
        self,
        selection: Selection,
        fits: Callable[[Machine], bool] = _any,
        taken: Iterable[str] = (),
    ) -> list[str]:
        """The selected machines among those that fit, in the order they were added."""
        machines = self.world.machines
        names = [name for name, machine in machines.items() if fits(machine)]
        pool = Pool(names, self.groups, FOUNDER, set(taken), machines.keys())
        return selection.choose(pool, self.rng)

    def new_names(self, count: int, group: str) -> list[str]:
        """Names for machines that are to be added, and to belong to a group."""
        names = [self._next_name() for _ in range(count)]
        if group:
            self.groups.setdefault(group, set()).update(names)
        for name in names:
            self._set_clocks(name)
        return names

    def _next_name(self) -> str:
        self._number += 1
        return f"node{self._number}"

    def add(self, name: str, *, token: bool) -> None:
        """Add a machine of that name: with a token, or told about the seeds."""
        if token:
            self.world.join(name)
            return
        seeds = [f"node{number}" for number in range(1, self.scenario.cluster.seeds + 1)]
        machines = self.world.machines
        there = [seed for seed in seeds if seed in machines and machines[seed].live]
        self.world.add_node(name, seeds=there or [FOUNDER])

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something in so many virtual seconds."""
        self.world.clock.after(seconds, action)

    # -- events ------------------------------------------------------------------------------------

    def _track(self, label: str, at: float) -> Happened:
        happened = Happened(label, Tracker(label, at))
        self.happened.append(happened)
        return happened

    def _happen(self, event: EventSpec) -> None:
        act = event.act
        targets = act.targets(self)
        happened = self._track(event.name, self.world.now)
        happened.targets = len(targets)
        if act.newborn:
            happened.tracker.expect(targets)
        step = act.over / len(targets) if targets else 0.0
        for number, name in enumerate(targets):
            last = number == len(targets) - 1
            begin = partial(self._begin_with, event, happened, name, last=last)
            if act.over:
                self.later(number * step, begin)
            else:
                begin()

    def _begin_with(self, event: EventSpec, happened: Happened, name: str, *, last: bool) -> None:
        tracker = happened.tracker
        try:
            goals = event.act.begin(self, name)
            tracker.goals += goals
            if not goals:
                tracker.dismiss(name)
        except (RefusedError, CapacityError) as refused:
            self.refusals += 1
            self.world.trace.note("event.refused", name, {"why": str(refused)}, self.world.now)
        except OverlayError as error:
            raise ConfigError(
                f"cannot {event.do} {name} at {self.world.now:.2f} s: {error}"
            ) from error
        if last and tracker.goals:
            tracker.open(self._awake(), self.world.now)

    # -- watching ----------------------------------------------------------------------------------

    def _awake(self) -> dict[str, Machine]:
        """Machines that can be asked: their engine runs, is not paused, and is one of its kind.

        Of two with one identity others can reach only one at a time: neither is expected to know
        what all know.
        """
        doubles = self.world.doubles
        return {
            name: machine
            for name, machine in self.world.machines.items()
            if machine.power is Power.RUNNING and name not in doubles
        }

    def run(self, until: float | None = None, on_progress: OnProgress | None = None) -> Outcome:
        """Play to the end, or to `until`.

        Raises:
            ConfigError: an event is about a node that there is not. Nothing else.
        """
        end = self.scenario.until if until is None else until
        looks = 0
        broken = ""
        while self.world.now < end and not broken:
            looks += 1
            broken = self._advance(min(end, looks * LOOK_INTERVAL))
            self._look()
            if looks % round(SAMPLE / LOOK_INTERVAL) == 0:
                self._sample(on_progress)
        broken = broken or self._check()
        return self._outcome(broken)

    def _outcome(self, broken: str) -> Outcome:
        roots = {machine.engine.parts.store.root() for machine in self._awake().values()}
        now = self.world.now
        spans = [(one.tracker.at, one.tracker.at + one.took(now)) for one in self.happened]
        busy = [(begin - 1.0, end + SETTLE) for begin, end in spans]
        return Outcome(
            events=summaries(self.happened),
            steady=self.rates.steady(busy),
            peak=self.rates.peak(),
            deaths=self.deaths,
            refusals=self.refusals,
            checks=self.world.inspector.checks,
            broken=broken,
            agree=len(roots) <= 1,
            nodes=len(self.world.live()),
            now=now,
        )

    def _look(self) -> None:
        open_trackers = [one.tracker for one in self.happened if not one.tracker.settled]
        if open_trackers:
            awake = self._awake()
            for tracker in open_trackers:
                tracker.look(awake, self.world.now)

    def _sample(self, on_progress: OnProgress | None) -> None:
        live = ((machine.name, machine.traffic) for machine in self.world.live())
        self.rates.sample(live, self.world.now)
        if on_progress is not None:
            on_progress(self)

    def _advance(self, until: float) -> str:
        """Let everything happen until then; what forbidden thing did, or nothing."""
        try:
            self.world.run(until)
        except InvariantError as broken:
            return str(broken)
        return ""

    def _check(self) -> str:
        """What forbidden thing is so at the end; empty if nothing is."""
        try:
            self.world.check_invariants()
        except InvariantError as broken:
            return str(broken)
        return ""

    def waiting(self) -> int:
        """Live nodes that do not show the final state of every event yet."""
        missing = {name for one in self.happened for name in one.tracker.missing}
        return sum(machine.name in missing for machine in self.world.live())
