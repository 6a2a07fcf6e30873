"""What a node promises of its state folder, with real daemons: killed, and on a full disk.

A daemon is killed while pods come and go: each answer it has given holds after the next start. Its
disk is full: packets flow, nothing new is given away, and it goes on by itself when there is room.
"""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from node.errors import NodeError
from tests.support.machines import Machine, Yard, YardMaker
from tests.support.mounts import command, fill
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import background
from tests.support.traffic import reaches
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

SOON = 30.0
KILLS = 5
SEED = 11


def own_pods(machine: Machine) -> dict[str, str]:
    """Names and addresses of the pods of this node."""
    rows = machine.get("pods")
    return {row["name"]: row["address"] for row in rows if row["node"] == machine.name}


class Churn:
    """Adds and removes pods until the daemon does not answer any more.

    Attributes:
        pods: what it was told: names and addresses.
        open: the pod it was not told the outcome of.
        answers: how many it got.
        end: the code of the error that ended it.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.pods: dict[str, str] = {}
        self.open = ""
        self.answers = 0
        self.end = ""
        self._rng = random.Random(SEED)

    def run(self) -> None:
        while True:
            self.open = name = f"p{self._rng.randrange(6)}"
            try:
                if name in self.pods:
                    self.machine.ask("pod.del", name=name)
                    del self.pods[name]
                else:
                    self.pods[name] = self.machine.ask("pod.add", name=name)["address"]
            except NodeError as error:
                self.end = error.code
                return
            self.open = ""
            self.answers += 1

    def check(self) -> None:
        """Compare with what the daemon that runs now has, and go on from there."""
        assert self.end not in {"pod-exists", "no-such-pod"}
        has = own_pods(self.machine)
        known = {name: address for name, address in self.pods.items() if name != self.open}
        assert {name: has[name] for name in has if name != self.open} == known
        self.pods, self.open = has, ""


def test_no_answer_about_a_pod_is_lost_when_the_daemon_is_killed(make_yard: YardMaker) -> None:
    yard = make_yard(1)
    machine = yard.found()
    churn, rng = Churn(machine), random.Random(SEED)
    with ThreadPoolExecutor(max_workers=1) as executor:
        for _ in range(KILLS):
            running = executor.submit(churn.run)
            before = churn.answers
            eventually(lambda before=before: churn.answers > before, within=SOON)
            with pytest.raises(TimeoutError):
                running.result(timeout=rng.random() * 0.3)
            machine.stop(signal.SIGKILL)
            running.result(timeout=SOON)
            machine.up()
            churn.check()
    assert churn.answers >= KILLS
    assert not list(machine.state.glob("*.damaged-*"))


# -- a full disk -----------------------------------------------------------------------------------


@pytest.fixture
def yard(make_yard: YardMaker) -> Iterator[Yard]:
    """Two machines; the state folder of the first is a small file system of its own."""
    made = make_yard(2)
    folder = made.machines[0].state
    folder.mkdir(mode=0o700, parents=True)
    command("mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "none", folder)
    try:
        yield made
    finally:
        if made.machines[0].pid is not None:
            made.machines[0].stop()
        subprocess.run(["umount", str(folder)], check=True)


def test_on_a_full_disk_packets_flow_and_nothing_new_is_given_until_there_is_room(
    yard: Yard,
) -> None:
    one, two = yard.found(), yard.join(yard.machines[1])
    for machine in (one, two):
        machine.says("pod", "add", "web")
    here, there = two.place("web"), one.place("web")
    eventually(lambda: reaches(here, there.address), within=SOON)
    filler = fill(one.state)
    pods = own_pods(one)
    with background(here.netns, "ping", "-n", "-i0.05", there.address) as pinging:
        # There may be some room in the last page of the file.
        for number in range(20):
            done = one.types("pod", "add", f"more{number}")
            if done.returncode:
                break
            pods = own_pods(one)
        assert "no space left on device" in done.stderr
        done = one.types("pod", "add", "late")
        assert "the state folder cannot be written" in done.stderr
        assert "not-stored" in one.problems()
        assert own_pods(one) == pods
        for number in range(1, 20):  # all of them come back, and in order: none was lost meanwhile
            while "bytes from" not in (line := pinging.line(SOON)):
                pass
            assert f"icmp_seq={number} " in line
    filler.unlink()
    eventually(lambda: "not-stored" not in one.problems(), within=SOON)
    one.says("pod", "add", "late")
    eventually(lambda: reaches(here, one.place("late").address), within=SOON)
    one.stop(signal.SIGKILL)
    one.up()
    assert own_pods(one).keys() == {*pods, "late"}
