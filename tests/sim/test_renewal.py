"""More than a year in a cluster whose certificates live for 90 days, with nodes that come and go.

Wall clocks run 21,600 times as fast as the world: they are set ahead by twelve hours every two
seconds, on all machines. Certificates know nothing but wall clocks, so 400 days pass in half an
hour of virtual time. What is patient about certificates is made quicker by as much, and keypairs
live for no more than five days.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from overlay.config import Settings, Timing
from overlay.effects import Effect
from overlay.renewal import Renewal
from overlay.sim import Machine, World
from overlay.sim.world import EPOCH, NotReachedError
from overlay.wire.certificate import issue_certificate

DAY: Final = 86_400
STEP: Final = 2.0
JUMP: Final = DAY / 2
FAST: Final = JUMP / STEP
LIFE: Final = 90 * DAY

TIMING: Final = Timing(
    rekey_after=12.0,
    reject_after=18.0,
    renew_spread=300.0 / FAST,
    renew_retry=0.02,
    renew_retry_max=900.0 / FAST,
)
NAMES: Final = ("node1", "node2", "node3", "node4", "node5")
SKEWS: Final = {"node2": 60.0, "node4": -60.0}


class Year:
    """A cluster whose days pass.

    Attributes:
        day: how many have passed.
        up_since: when each machine that runs was switched on, in days.
        worst: the least that a machine that has been up for a day had left, in days.
    """

    def __init__(self, seed: int, lifetime: int = LIFE) -> None:
        settings = Settings(timing=TIMING, certificate_lifetime=LIFE)
        self.world = World(seed, settings=settings)
        self._certify_founder()
        for name in NAMES[1:]:
            self.world.add_node(name, lifetime=lifetime)
        self.world.run_until(self.world.converged, timeout=30.0)
        for name, skew in SKEWS.items():
            self.world[name].set_clock(step=skew)
        self._began = self.world.now
        self.day = 0.0
        self.up_since = dict.fromkeys(NAMES, 0.0)
        self.worst = float("inf")

    def _certify_founder(self) -> None:
        """It has a certificate for ten years, as in all worlds; here it has one like the others."""
        founder = self.world["node1"]
        membership, old = founder.membership, founder.membership.identity.certificate
        assert membership.authorities
        certificate = issue_certificate(
            membership.authorities[0],
            **{key: getattr(old, key) for key in ("node", "static", "name", "cluster", "serial")},
            not_before=int(EPOCH),
            not_after=int(EPOCH) + LIFE,
        )
        founder.crash()
        identity = replace(membership.identity, certificate=certificate)
        founder.membership = replace(membership, identity=identity)
        founder.start()

    def switch(self, name: str, *, on: bool) -> None:
        """Switch a machine on or off, unless it is."""
        machine = self.world[name]
        if on and not machine.live:
            machine.start()
            self.up_since[name] = self.day
        elif not on and machine.live:
            machine.crash()

    def run(self, days: float, each: Callable[[], None] = lambda: None) -> None:
        """Let days pass; `each` is called twice a day."""
        until = self.day + days
        while self.day < until:
            for machine in self.world.machines.values():
                machine.set_clock(step=JUMP - STEP)
            self.world.run(self.world.now + STEP)
            self.day += JUMP / DAY
            each()
            self._look()

    def left(self, machine: Machine) -> float:
        """Days until the end of the certificate that it uses, by its own clock."""
        wall = machine.engine.parts.wall.at(machine.now)
        return (machine.engine.identity.certificate.not_after - wall) / DAY

    def _look(self) -> None:
        for machine in self.world.live():
            if self.day - self.up_since[machine.name] >= 1.0:
                self.worst = min(self.worst, self.left(machine))

    def everybody_talks(self) -> None:
        """All that run reach each other, by a handshake of today."""
        self.run(3.0)
        self.world.run_until(self.world.converged, timeout=60.0)
        live = {machine.name for machine in self.world.live()}
        for machine in self.world.live():
            shown = {node.name: node.path for node in machine.snapshot().nodes}
            paths = {name: shown[name] for name in live - {machine.name}}
            assert set(paths.values()) == {"direct"}, (machine.name, paths)
            problems = [one.code for one in machine.snapshot().problems]
            assert not [code for code in problems if "certificate" in code], machine.name


def comings_and_goings(year: Year, rng: random.Random) -> Callable[[], None]:
    """Members are up for a day to a month, then down for up to two weeks."""
    turns = {name: rng.uniform(1.0, 30.0) for name in NAMES[1:]}

    def each() -> None:
        for name, at in turns.items():
            if year.day >= at:
                on = not year.world[name].live
                year.switch(name, on=on)
                turns[name] = year.day + (rng.uniform(1.5, 30.0) if on else rng.uniform(1.0, 14.0))

    return each


def test_nobody_who_was_up_for_a_day_in_the_last_third_is_ever_cut_off() -> None:
    year = Year(1)
    year.run(400.0, comings_and_goings(year, random.Random(1)))
    for name in NAMES:
        year.switch(name, on=True)
    year.run(1.0)
    assert year.day >= 400
    assert year.world.clock.now + EPOCH < EPOCH + DAY, "no day of virtual time has passed"
    assert year.worst > 0.0
    year.everybody_talks()
    for machine in year.world.live():
        # Each of them was renewed again and again: a certificate is replaced every two months.
        assert machine.engine.identity.certificate.not_before > EPOCH + 300 * DAY
    year.world.check_invariants()


def test_the_authority_s_node_may_be_away_for_a_week_when_all_certificates_are_due() -> None:
    year = Year(3)
    year.run(57.0)
    year.switch("node1", on=False)
    year.run(9.0)
    assert 20.0 < year.worst < 30.0, "they are due, and nobody renewed them"
    year.switch("node1", on=True)
    year.run(1.0)
    assert min(year.left(machine) for machine in year.world.live()) > 80.0
    year.everybody_talks()


def test_who_comes_back_after_weeks_has_a_day_to_be_renewed() -> None:
    year = Year(4)
    year.run(20.0)
    year.switch("node3", on=False)
    year.run(68.0)
    year.switch("node3", on=True)
    assert 1.0 < year.left(year.world["node3"]) < 2.1
    year.run(1.0)
    assert year.left(year.world["node3"]) > 88.0
    year.everybody_talks()


def test_who_comes_back_too_late_is_told_what_to_do() -> None:
    year = Year(5)
    year.run(20.0)
    year.switch("node3", on=False)
    year.run(75.0)
    year.switch("node3", on=True)
    year.run(3.0)
    problems = {one.code: one for one in year.world["node3"].snapshot().problems}
    assert "certificate-expired" in problems
    assert "muslin cert request" in problems["certificate-expired"].fix
    assert {one.code for one in year.world["node2"].snapshot().problems} >= {
        "member-certificate-expires"
    }


def test_these_proofs_are_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def dumb(renewal: Renewal, now: float) -> list[Effect]:
        if renewal.is_due(now):
            renewal.wait(now)
        return []

    monkeypatch.setattr(Renewal, "on_deadline", dumb)
    year = Year(6)
    year.run(95.0)
    assert year.worst < 0.0
    with pytest.raises((AssertionError, NotReachedError)):
        year.everybody_talks()
