"""A machine is switched off and on: no runtime has deleted anything, and all of it is gone.

The kernel's boot id is what the daemon reads; a file of the test's is mounted over it, in a mount
namespace that only this daemon has. The rest of a reboot is done by hand: the daemon killed, its
pods' namespaces and links removed.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from node.errors import NodeError
from node.kernel import netns
from node.kernel.model import veth_name
from tests.support.machines import Machine, YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import run
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

SOON = 30.0


@pytest.fixture
def spaces() -> Iterator[list[str]]:
    """Names of namespaces that the test makes, removed whatever happens."""
    made: list[str] = []
    yield made
    for name in made:
        netns.delete(name)


@contextmanager
def booted(machine: Machine, boot: UUID, folder: Path) -> Iterator[None]:
    """The daemon running on a machine of that boot, and killed at the end."""
    file = folder / "boot_id"
    file.write_text(f"{boot}\n")
    mount = f'mount --bind {file} /proc/sys/kernel/random/boot_id && exec "$0" "$@"'
    # Namespaces that are made later shall be seen there, and the file by nobody else.
    apart = ("unshare", "--mount", "--propagation", "slave", "sh", "-c", mount)
    with machine.running("up", before=apart) as daemon:
        eventually(lambda: is_up(machine) or daemon.process.poll() is not None, within=SOON)
        assert daemon.process.poll() is None, daemon.said()
        yield
        daemon.process.kill()


def is_up(machine: Machine) -> bool:
    try:
        return bool(machine.ask("pod.ready")["ready"])
    except (OSError, NodeError):
        return False


def add(machine: Machine, spaces: list[str], container: str, **said: object) -> dict[str, object]:
    """A container, as a runtime adds it."""
    name = f"{machine.info.name}-{container}"
    if container not in {"handed"}:
        netns.create(name)
        spaces.append(name)
        said["netns"] = name
    added: dict[str, object] = machine.ask("pod.add", container=container, **said)
    return added


def links(machine: Machine) -> dict[str, int]:
    """Host ends of pods' links, with their numbers."""
    listed = json.loads(run(machine.netns, "ip", "-j", "link"))
    return {one["ifname"]: one["ifindex"] for one in listed if one["ifname"].startswith("mus")}


def switch_off(machine: Machine, spaces: list[str]) -> None:
    """What is left of pods after a reboot: nothing."""
    for name in spaces:
        netns.delete(name)
    spaces.clear()
    for link in links(machine).keys() - {"muslin0"}:
        subprocess.run(["ip", "-n", machine.netns, "link", "del", link], check=False)
    subprocess.run(["ip", "netns", "exec", machine.netns, "nft", "flush", "ruleset"], check=True)


def test_a_reboot_frees_what_is_gone_and_says_so(
    make_yard: YardMaker, spaces: list[str], tmp_path: Path
) -> None:
    machine = make_yard(1).machines[0]
    machine.says("init", "--name", machine.name)
    with booted(machine, uuid4(), tmp_path):
        held = machine.ask("address.reserve", owner="docker")
        other = machine.ask("address.reserve", owner="docker")
        pods = [
            add(machine, spaces, "c1", owner="cni", network="pods"),
            add(machine, spaces, "handed", owner="docker", handed=True, ip=held["address"]),
            add(machine, spaces, "cli", owner="cli", name="web"),
        ]
    switch_off(machine, spaces)
    machine.log.write_text("")
    with booted(machine, uuid4(), tmp_path):
        assert machine.get("pods") == []
        assert machine.ask("ipam.check")["findings"] == []
        (notice,) = machine.ask("status")["notices"]
        names = ", ".join(sorted(str(pod["name"]) for pod in pods))
        assert notice["what"] == f"3 pods were gone when the daemon started: {names}"
        assert notice["why"] == "the machine has been restarted"
        # What was reserved is Docker's as before; it remembers its endpoints, and gives them back.
        reserved = machine.ask("ipam.check")["reserved"]
        assert [one["address"] for one in reserved] == [held["address"], other["address"]]
        assert [one["pod"] for one in reserved] == [None, None]
        # The other addresses rest; the runtime adds its container again and gets a new one.
        again = add(machine, spaces, "c1", owner="cni", network="pods")
        assert again["address"] not in {pod["address"] for pod in pods} | {other["address"]}
        assert machine.ask("address.release", owner="docker", address=held["address"])["released"]
        assert machine.ask("pod.gc", network="pods", keep=[]) == {"removed": [again["name"]]}
        assert links(machine).keys() - {"muslin0"} == set()


def test_a_start_in_the_same_boot_keeps_what_is_there(
    make_yard: YardMaker, spaces: list[str], tmp_path: Path
) -> None:
    machine = make_yard(1).machines[0]
    machine.says("init", "--name", machine.name)
    boot = uuid4()
    with booted(machine, boot, tmp_path):
        kept = add(machine, spaces, "kept", owner="cni")
        gone = add(machine, spaces, "gone", owner="cni")
    before = links(machine)
    netns.delete(spaces.pop())
    eventually(lambda: veth_name(str(gone["name"])) not in links(machine), within=SOON)
    with booted(machine, boot, tmp_path):
        (pod,) = machine.get("pods")
        assert (pod["name"], pod["address"]) == (kept["name"], kept["address"])
        assert links(machine)[str(kept["link"])] == before[str(kept["link"])]
        (notice,) = machine.ask("status")["notices"]
        assert notice["why"] == "its namespace is gone"
        assert machine.ask("pod.check", container="kept")["address"] == kept["address"]


def test_pods_of_another_boot_go_though_their_namespaces_have_come_again(
    make_yard: YardMaker, spaces: list[str], tmp_path: Path
) -> None:
    machine = make_yard(1).machines[0]
    machine.says("init", "--name", machine.name)
    with booted(machine, uuid4(), tmp_path):
        old = add(machine, spaces, "c1", owner="cni")
    with booted(machine, uuid4(), tmp_path):
        assert machine.get("pods") == []
        assert str(old["link"]) not in links(machine)
