"""Attachments that come and go by real plugin processes, and what is left of them.

    worker 1..N, each in the node's namespace, each with a container's namespace:
        muslin-cni ADD  ->  muslin-cni DEL  ->  the next container, CYCLES times

What each process did when is told by a plugin with a watch: the installed program and a few lines,
which write down the times of its start, of its imports, of the daemon's answer and of its end. The
clock is the machine's monotonic one, so they compare with the times of who started the process.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from node.kernel import netns
from node.proc import parse_stat
from tests.support.cni import config
from tests.support.processes import run
from tests.support.runtime import Container, Runtime

_WATCH = """
import time as _time
_times = [_time.monotonic()]
"""
_READ = """
import node.cni.plugin as _plugin
_times.append(_time.monotonic())
_ask = _plugin.ask

def _asked(*arguments, **more):
    _times.append(_time.monotonic())
    try:
        return _ask(*arguments, **more)
    finally:
        _times.append(_time.monotonic())

_plugin.ask = _asked
_code = main()
_times.append(_time.monotonic())
_plugin._write(2, " ".join(map(str, _times)))
_exit(_code)
"""

STEPS = ("process and interpreter", "imports", "reading", "daemon", "answering", "ending")
"""What the time of one verb is made of: until the plugin's first line; until its last import; until
it asks; until it has the answer; until that is written; until the process is gone."""


def watched(program: Path) -> Path:
    """A copy of the installed plugin that writes its times to standard error."""
    first, _, rest = program.read_text().partition("\n")
    copy = program.with_name("muslin-cni-watched")
    copy.write_text(f"{first}\n{_WATCH}{rest.replace('_exit(main())', _READ)}")
    copy.chmod(0o755)
    return copy


@dataclass
class Timed:
    """One verb: when it began, and how long each of `STEPS` took, in seconds."""

    began: float
    steps: list[float]

    @property
    def whole(self) -> float:
        """Seconds from the start of the process to its end."""
        return sum(self.steps)


@dataclass
class Held:
    """How long an attachment had its address: between these moments nobody else may."""

    address: str
    given: float
    freed: float


@dataclass
class Churned:
    """What came of it.

    Attributes:
        verbs: every call, by verb.
        held: every attachment, in no order.
        failures: what went wrong, as text.
        seconds: all of it.
        plugin_cpu, daemon_cpu: seconds of processor time.
    """

    verbs: dict[str, list[Timed]] = field(default_factory=lambda: {"ADD": [], "DEL": []})
    held: list[Held] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    plugin_cpu: float = 0.0
    daemon_cpu: float = 0.0

    def quantile(self, verb: str, part: float) -> float:
        """Seconds within which that part of the calls was done."""
        times = sorted(each.whole for each in self.verbs[verb])
        return times[min(len(times) - 1, int(part * len(times)))]

    def step(self, verb: str, number: int) -> tuple[float, float]:
        """Median and 99th percentile of one of the steps, in seconds."""
        times = sorted(each.steps[number] for each in self.verbs[verb])
        return statistics.median(times), times[int(0.99 * (len(times) - 1))]

    def soonest_reuse(self) -> float | None:
        """The shortest time between two attachments with one address; None if there is none.

        From the moment before DEL was called: the daemon frees it no earlier.
        """
        by_address: dict[str, list[Held]] = {}
        for held in self.held:
            by_address.setdefault(held.address, []).append(held)
        waits: list[float] = []
        for several in by_address.values():
            several.sort(key=lambda held: held.given)
            waits += [b.given - a.freed for a, b in itertools.pairwise(several)]
        return min(waits, default=None)


def churn(
    runtime: Runtime,
    containers: list[Container],
    cycles: int,
    *,
    tell: Callable[[int], object] = lambda _: None,
) -> Churned:
    """Add and delete, one worker per container, `cycles` times each.

    Args:
        runtime: whose plugin.
        containers: their namespaces are used; each cycle has an id of its own.
        cycles: per worker.
        tell: called with how many cycles are done, by any worker.
    """
    churned, done = Churned(), Counter[str]()
    program, lock = watched(runtime.plugin), threading.Lock()
    pid = runtime.machine.pid
    assert pid is not None

    def work(container: Container) -> None:
        for number in range(cycles):
            one = Container(f"{container.id}x{number}", container.netns)
            try:
                _cycle(runtime, program, one, churned)
            except (AssertionError, OSError, ValueError) as error:
                churned.failures.append(f"{one.id}: {error}")
                return
            with lock:
                done["cycles"] += 1
                tell(done["cycles"])

    began = time.monotonic()
    cpu, children = daemon_cpu(pid), _children_cpu()
    threads = [
        threading.Thread(target=netns.run_in, args=(runtime.machine.netns, work, container))
        for container in containers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    churned.seconds = time.monotonic() - began
    churned.daemon_cpu = daemon_cpu(pid) - cpu
    churned.plugin_cpu = _children_cpu() - children
    return churned


def _cycle(runtime: Runtime, program: Path, container: Container, churned: Churned) -> None:
    result = _verb(runtime, program, "ADD", container, churned)
    given = time.monotonic()
    freed = time.monotonic()
    _verb(runtime, program, "DEL", container, churned, prevResult=result)
    address = result["ips"][0]["address"]
    churned.held.append(Held(address, given, freed))


def _verb(
    runtime: Runtime,
    program: Path,
    verb: str,
    container: Container,
    churned: Churned,
    **more: object,
) -> dict[str, Any]:
    about = {"name": runtime.network, "state": str(runtime.machine.state), **more}
    environ = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": container.id,
        "CNI_NETNS": container.netns,
        "CNI_IFNAME": "eth0",
    }
    given = json.dumps(config("1.1.0", **about)).encode()
    began = time.monotonic()
    process = Popen([program], stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environ)
    with process:
        out, err = process.communicate(given)
    ended = time.monotonic()
    assert process.returncode == 0, f"{verb}: {out.decode()} {err.decode()}"
    moments = [began, *map(float, err.split()), ended]
    assert len(moments) == len(STEPS) + 1, f"{verb}: {err.decode()}"
    steps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    churned.verbs[verb].append(Timed(began, steps))
    return dict(json.loads(out)) if out else {}


def daemon_cpu(pid: int) -> float:
    """Processor seconds of the daemon so far."""
    return parse_stat(Path(f"/proc/{pid}/stat").read_text()).cpu_seconds


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# -- what could leak -------------------------------------------------------------------------------


def inventory(runtime: Runtime) -> dict[str, int]:
    """Everything of which there must not be more afterwards, counted."""
    machine = runtime.machine
    pid = machine.pid
    assert pid is not None

    def lines(*argv: str) -> int:
        return len(run(machine.netns, *argv).splitlines())

    def files(*parts: str) -> int:
        return len(os.listdir(Path("/proc", str(pid), *parts)))

    return {
        "links": lines("ip", "-o", "link"),
        "addresses": lines("ip", "-o", "addr"),
        "IPv4 routes": lines("ip", "-4", "route", "show", "table", "all"),
        "IPv6 routes": lines("ip", "-6", "route", "show", "table", "all"),
        "rules": lines("ip", "rule") + lines("ip", "-6", "rule"),
        "permanent neighbours": lines("ip", "neigh", "show", "nud", "permanent"),
        "queueing disciplines": lines("tc", "qdisc"),
        "nft lines": lines("nft", "list", "ruleset"),
        "namespaces": len([name for name in netns.names() if name.startswith(f"t{os.getpid()}-")]),
        "descriptors of the daemon": files("fd"),
        "threads of the daemon": files("task"),
        "pods": len(machine.get("pods")),
        "findings of ipam check": len(machine.ask("ipam.check")["findings"]),
        "notes": len(list((machine.state / "detached").glob("*"))),
        "files of the node": len(os.listdir(machine.state)),
    }


def memory(runtime: Runtime) -> int:
    """Resident bytes of the daemon."""
    status = Path(f"/proc/{runtime.machine.pid}/statm").read_text().split()
    return int(status[1]) * resource.getpagesize()


def left_of(runtime: Runtime, before: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Of what there is another number than before: that, and the present one."""
    after = inventory(runtime)
    return {what: (count, after[what]) for what, count in before.items() if after[what] != count}
