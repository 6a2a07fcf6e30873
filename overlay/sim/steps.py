"""What may happen in a random schedule: one function for each thing, and the table of all.

A step does one thing to the world of its schedule, at random, and says what it did. It returns None
when it makes no sense at the moment; then another is drawn. What it raises as a refusal is an
answer of the node that was asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from overlay.sim.faults import Power

if TYPE_CHECKING:  # a schedule draws from this table; the type alone needs it back
    from overlay.sim.schedules import Schedule

FIXED_BLOCKS: Final = 6
"""Addresses that are asked for are in the first blocks of the cluster, which nodes use."""

CLOCK_STEPS: Final = (-7200.0, -30.0, -0.5, 0.5, 30.0, 7200.0)
"""Seconds by which wall clocks are set ahead: a slew, an hour that was wrong, a token's life."""

# -- machines --------------------------------------------------------------------------------------


def new_node(schedule: Schedule) -> str | None:
    """A machine more, by the join exchange or certified offline."""
    if len(schedule.world.machines) + len(schedule.world.applicants) >= schedule.most:
        return None
    schedule.numbers += 1
    name = f"node{schedule.numbers}"
    founder = schedule.world[schedule.world.founder]
    if founder.power is Power.RUNNING and schedule.rng.random() < 0.5:
        schedule.world.join(name)
        return f"{name}, by token"
    via = schedule.one(Power.RUNNING, Power.PAUSED, Power.OFF)
    if via is None or via.name in schedule.copies:
        return None  # whoever knows nobody but a copy knows nobody when it is gone
    schedule.world.add_node(name, via=via.name)
    return f"{name}, knows what {via.name} has stored"


def _leave(schedule: Schedule) -> str | None:
    machine = schedule.one(Power.RUNNING)
    if machine is None or len(schedule.machines(Power.RUNNING)) < 3:
        return None
    machine.leave()
    return machine.name


def _remove(schedule: Schedule) -> str | None:
    """The operator declares a node dead for ever, rightly or wrongly."""
    founder = schedule.world[schedule.world.founder]
    names = [name for name in schedule.world.machines if name != founder.name]
    if founder.power is not Power.RUNNING or not names:
        return None
    name, force = schedule.rng.choice(names), schedule.rng.random() < 0.5
    founder.remove(name, force=force)
    return name


def _crash(schedule: Schedule) -> str | None:
    machine = schedule.one(Power.RUNNING, Power.PAUSED)
    if machine is not None:
        machine.crash()
    return None if machine is None else machine.name


def _power_loss(schedule: Schedule) -> str | None:
    machine = schedule.one(Power.RUNNING, Power.PAUSED)
    if machine is not None:
        machine.power_loss()
    return None if machine is None else machine.name


def _start(schedule: Schedule) -> str | None:
    machine = schedule.one(Power.OFF)
    if machine is not None:
        machine.start()
    return None if machine is None else machine.name


def _restart(schedule: Schedule) -> str | None:
    machine = schedule.one(Power.RUNNING)
    if machine is not None:
        schedule.world.restart(machine.name)
    return None if machine is None else machine.name


def _upgrade(schedule: Schedule) -> str | None:
    """A fresh process takes over from the one that runs."""
    machine = schedule.one(Power.RUNNING)
    if machine is None or not machine.upgrade():
        return None
    return machine.name


def _pause(schedule: Schedule) -> str | None:
    machine = schedule.one(Power.RUNNING)
    if machine is not None:
        machine.pause()
    return None if machine is None else machine.name


def _resume(schedule: Schedule) -> str | None:
    machine = schedule.one(Power.PAUSED)
    if machine is not None:
        machine.resume()
    return None if machine is None else machine.name


def _fail_disk(schedule: Schedule) -> str | None:
    machine, times = schedule.one(Power.RUNNING), schedule.rng.choice([1, 3, 1000])
    if machine is not None:
        machine.disk.fail(times)
    return None if machine is None else f"{machine.name}, {times} times"


def _slow_disk(schedule: Schedule) -> str | None:
    """Every write takes a while: what tells of it waits, and nothing else."""
    machine, latency = schedule.one(Power.RUNNING), schedule.rng.choice([0.01, 0.1, 0.5])
    if machine is not None:
        machine.disk.latency = latency
    return None if machine is None else f"{machine.name}, {latency} s"


def _mend_disk(schedule: Schedule) -> str | None:
    machine = schedule.one(Power.RUNNING)
    if machine is not None:
        machine.disk.fail(0)
        machine.disk.latency = 0.0
    return None if machine is None else machine.name


def _step_clock(schedule: Schedule) -> str | None:
    """Somebody sets a wall clock, or time synchronisation does. Timers do not follow it."""
    machine, step = schedule.one(*Power), schedule.rng.choice(CLOCK_STEPS)
    if machine is None:
        return None
    machine.set_clock(step=step)
    schedule.clocks[machine.name] = schedule.clocks.get(machine.name, 0.0) + step
    return f"{machine.name}, {step:+g} s"


def _cut(schedule: Schedule) -> str | None:
    names = list(schedule.world.machines)
    if len(names) < 2:
        return None
    one, other = schedule.rng.sample(names, 2)
    one_way = schedule.rng.random() < 0.5
    schedule.world.cut(one, other, one_way=one_way)
    return f"{one} {'->' if one_way else '<->'} {other}"


def _partition(schedule: Schedule) -> str | None:
    names = list(schedule.world.machines)
    if len(names) < 2:
        return None
    schedule.rng.shuffle(names)
    at = schedule.rng.randint(1, len(names) - 1)
    schedule.world.partition(names[:at], names[at:])
    return f"{' '.join(names[:at])} | {' '.join(names[at:])}"


def _heal(schedule: Schedule) -> str:
    schedule.world.heal()
    return ""


def _add_pod(schedule: Schedule) -> str | None:
    machine = schedule.one(Power.RUNNING)
    if machine is None:
        return None
    schedule.pods += 1
    pod = machine.add_pod(f"pod{schedule.pods}")
    return f"{machine.name}/{pod.name} {pod.address}"


def _add_fixed_pod(schedule: Schedule) -> str | None:
    """An address that is wanted: of this node, of another, taken, just freed, or nobody's."""
    machine = schedule.one(Power.RUNNING)
    if machine is None:
        return None
    parts = machine.engine.parts
    blocks = [*parts.holdings.blocks_in_use, schedule.rng.randrange(FIXED_BLOCKS)]
    block, host = schedule.rng.choice(blocks), schedule.rng.randint(0, 5)
    address = list(schedule.world.cluster.cidr.subnets(new_prefix=24))[block][host]
    schedule.pods += 1
    pod = machine.add_pod(f"pod{schedule.pods}", address)
    return f"{machine.name}/{pod.name} {pod.address}"


def _remove_pod(schedule: Schedule) -> str | None:
    machine = schedule.one(Power.RUNNING)
    pods = sorted(machine.engine.parts.holdings.pods) if machine is not None else []
    if machine is None or not pods:
        return None
    pod = machine.remove_pod(schedule.rng.choice(pods))
    return f"{machine.name}/{pod.name} {pod.address}"


# -- state that comes back ---------------------------------------------------------------------


def _back_up(schedule: Schedule) -> str | None:
    machine = schedule.one(Power.RUNNING, Power.PAUSED, Power.OFF)
    if machine is None or machine.name in schedule.copies:
        return None
    schedule.images.append((machine.name, dict(machine.disk.entries)))
    return machine.name


def _restore(schedule: Schedule) -> str | None:
    images = [one for one in schedule.images if not schedule.world[one[0]].left]
    if not images:
        return None
    name, image = schedule.rng.choice(images)
    schedule.world.restore(name, image)
    return name


def _clone(schedule: Schedule) -> str | None:
    machine = schedule.one(Power.RUNNING, Power.OFF)
    if machine is None or len(schedule.world.machines) >= schedule.most or schedule.copies:
        return None
    copy = f"copy-of-{machine.name}"
    schedule.copies.append(copy)
    schedule.world.clone(machine.name, copy)
    return f"{machine.name} as {copy}"


def _be_hostile(schedule: Schedule) -> str | None:
    return schedule.hostile.act()


Step = tuple[str, int, Callable[["Schedule"], str | None]]

STEPS: Final[tuple[Step, ...]] = (
    ("join", 4, new_node),
    ("leave", 3, _leave),
    ("remove", 2, _remove),
    ("crash", 4, _crash),
    ("power-loss", 3, _power_loss),
    ("start", 8, _start),
    ("restart", 3, _restart),
    ("upgrade", 5, _upgrade),
    ("pause", 2, _pause),
    ("resume", 4, _resume),
    ("fail-disk", 2, _fail_disk),
    ("slow-disk", 2, _slow_disk),
    ("mend-disk", 2, _mend_disk),
    ("step-clock", 2, _step_clock),
    ("cut", 3, _cut),
    ("partition", 3, _partition),
    ("heal", 4, _heal),
    ("add-pod", 10, _add_pod),
    ("add-fixed-pod", 5, _add_fixed_pod),
    ("remove-pod", 7, _remove_pod),
    ("back-up", 3, _back_up),
    ("restore", 2, _restore),
    ("clone", 1, _clone),
    ("hostile", 4, _be_hostile),
)
"""Name, weight, and what it does: returns what to write in the log, or None if it cannot be done
now. The name is also what `muslin sim --random --only` takes."""
