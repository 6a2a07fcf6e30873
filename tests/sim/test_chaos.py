"""Proof: whatever is cut, crashed, paused and filled up, nothing forbidden happens meanwhile.

And afterwards everybody agrees.
"""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from overlay.errors import CapacityError, RefusedError
from overlay.sim import Link, Machine, Power, World, udp

NODES = 5
STEPS = 40
LINKS = [
    Link(),
    Link.terrible(),
    Link(coalesce=True, loss=0.02),
    Link(mtu=1280, loss=0.05, duplication=0.1),
]


class Chaos:
    """Does one thing after the other to a world, at random."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"chaos/{seed}")
        self.world = World(seed, link=self.rng.choice(LINKS))
        for number in range(2, NODES + 1):
            self.rng.choice([self.world.join, self.world.add_node])(f"node{number}")
        self.pods = 0

    def step(self) -> None:
        """One thing, then a while in which it takes effect."""
        world, rng = self.world, self.rng
        machine = rng.choice(list(world.machines.values()))
        running = machine.power is Power.RUNNING
        with suppress(RefusedError, CapacityError):  # a refusal is an answer
            rng.choice(self._for_machine(machine) if running else self._for_world(machine))()
        world.run(world.now + rng.choice([0.0, 0.01, 0.1, 0.5, 2.0, 8.0]))

    def _for_machine(self, machine: Machine):
        fail = [lambda: machine.disk.fail(self.rng.choice([1, 3, 1000]))]
        faults = [machine.crash, machine.pause, machine.stop, *fail]
        leave = [machine.leave] if len(self.world.live()) > 3 else []
        work = [self._add_pod, self._remove_pod, self._send, self._send]
        return [*faults, *leave, *(lambda do=do: do(machine) for do in work), *self._for_world()]

    def _for_world(self, machine: Machine | None = None):
        world, rng = self.world, self.rng
        names = list(world.machines)
        actions = [
            world.heal,
            lambda: world.cut(*rng.sample(names, 2)),
            lambda: world.cut(*rng.sample(names, 2), one_way=True),
            lambda: world.partition(names[::2], names[1::2]),
        ]
        if machine is not None:
            actions += [lambda: world.restart(machine.name), machine.resume] * 2
        return actions if len(names) > 1 else [world.heal]

    def _add_pod(self, machine: Machine) -> None:
        self.pods += 1
        machine.add_pod(f"pod{self.pods}")

    def _remove_pod(self, machine: Machine) -> None:
        for pod in machine.snapshot().pods:
            if pod.local:
                machine.remove_pod(pod.name)
                return

    def _send(self, machine: Machine) -> None:
        pods = machine.snapshot().pods
        for source in (pod for pod in pods if pod.local):
            target = self.rng.choice(pods)
            size = self.rng.choice([1, 100, 3000, 30_000])
            machine.send_packet(udp(source.address, target.address, bytes(size)))

    def repair(self) -> None:
        """End all faults."""
        self.world.heal()
        for machine in self.world.machines.values():
            machine.disk.fail(0)
            machine.resume()
            if machine.power is Power.OFF:
                machine.start()
        for name, applicant in list(self.world.applicants.items()):
            if applicant.failure is not None:
                del self.world.applicants[name]  # it asked at the wrong time and gave up


@pytest.mark.parametrize("seed", range(6))
def test_nothing_forbidden_happens_and_in_the_end_all_agree(seed):
    chaos = Chaos(seed)
    world = chaos.world
    world.every(0.2, world.check_invariants)
    for _ in range(STEPS):
        chaos.step()
    chaos.repair()
    world.run_until(world.converged, timeout=60.0)
    world.run(world.now + 30.0)
    assert world.converged()
    shown = [machine.snapshot() for machine in world.live()]
    pods = [{(pod.node, pod.name, pod.address) for pod in one.pods} for one in shown]
    assert all(known == pods[0] for known in pods)
    assert all(one.ledger.queued == 0 for one in shown)
    # Whatever crashed and could not be stored: nobody took itself for a copy.
    assert world.trace.notes("record.overtaken") == []
    assert not any(machine.engine.conflict.frozen for machine in world.live())
