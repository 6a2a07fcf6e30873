"""`muslin doctor` on three real machines, one of which is made odd in several ways."""

from __future__ import annotations

import json
import signal

from tests.support.machines import Machine, YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import run
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

WITHIN = 60.0


def odd(machine: Machine) -> dict[str, list[str]]:
    done = machine.types("doctor", "-o", "json")
    found = {one["check"]: one["nodes"] for one in json.loads(done.stdout) if one["state"] == "odd"}
    assert done.returncode == (1 if found else 0), done.stderr
    return found


def test_the_odd_one_is_named_whoever_is_asked(make_yard: YardMaker) -> None:
    yard = make_yard(3)
    founder, second, third = yard.machines
    yard.found()
    yard.join(second)
    third.joins(founder)
    (third.state / "config.toml").write_text("mtu = 1400\n")
    third.up()
    for machine in yard.machines:
        eventually(lambda machine=machine: odd(machine) == {"mtu": ["node3"]}, within=WITHIN)
    run(second.netns, "ip", "link", "add", "docker0", "type", "bridge")
    run(second.netns, "ip", "addr", "add", "10.244.200.1/24", "dev", "docker0")
    run(second.netns, "ip", "link", "set", "docker0", "up")
    expected = {"mtu": ["node3"], "ranges": ["node2"], "problems": ["node2"]}
    eventually(lambda: odd(founder) == expected, within=WITHIN)
    run(second.netns, "ip", "link", "del", "docker0")
    third.stop(signal.SIGKILL)
    eventually(lambda: odd(founder).get("answers") == ["node3"], within=WITHIN)
    table = founder.types("doctor").stdout
    assert "node3 (" in table
    assert ") does not answer" in table
