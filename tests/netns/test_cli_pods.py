"""Pods and the daemon itself, as people handle them: `pod`, `exec` and `up` on real nodes.

node1 -- founded the cluster     node2 -- has pod db     node3 -- starts and stops in single tests
"""

from __future__ import annotations

import itertools
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.kernel import netns
from node.kernel.model import veth_name
from node.kernel.pods import OWN_PREFIX
from tests.support.machines import Machine, Yard
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import background, links
from tests.support.traffic import is_answered
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

SOON = 30.0
"""Seconds, for what takes one or two, on a machine that may be busy with other things."""

_NUMBERS = itertools.count(1)


@pytest.fixture
def pod_name() -> str:
    """A name that no other pod has."""
    return f"p{next(_NUMBERS)}"


# -- pods ------------------------------------------------------------------------------------------


def test_a_pod_gets_a_namespace_made_for_it_which_goes_with_it(
    node1: Machine, pod_name: str
) -> None:
    said = node1.says("pod", "add", pod_name)
    pod = node1.place(pod_name)
    assert said == f"pod {pod_name} added: {pod.address} {pod.address6} in {pod.netns}\n"
    assert Path(pod.netns).name.startswith(OWN_PREFIX)
    assert netns.exists(pod.netns)
    assert sorted(links(pod.netns)) == ["eth0", "lo"]
    assert veth_name(pod_name) in links(node1.netns)
    assert is_answered(pod, node1.place("web").address)
    assert node1.says("pod", "del", pod_name) == f"pod {pod_name} deleted\n"
    assert not netns.exists(pod.netns)
    assert veth_name(pod_name) not in links(node1.netns)


@pytest.mark.parametrize("by", ["name", "path"])
def test_a_namespace_that_was_given_stays(
    yard: Yard, node1: Machine, pod_name: str, by: str
) -> None:
    given = netns.create(f"{yard.name}-node9-{pod_name}")
    try:
        node1.says("pod", "add", pod_name, "--netns", given.name if by == "name" else given)
        pod = node1.place(pod_name)
        assert pod.netns == str(given)
        assert is_answered(pod, node1.place("web").address6)
        node1.says("pod", "del", pod_name)
        assert links(str(given)) == ["lo"]
        assert veth_name(pod_name) not in links(node1.netns)
    finally:
        netns.delete(given.name)


def test_an_address_can_be_chosen(node1: Machine, pod_name: str) -> None:
    wanted = node1.place("web").address.rsplit(".", 1)[0] + ".200"
    node1.says("pod", "add", pod_name, "--ip", wanted)
    assert node1.place(pod_name).address == wanted
    node1.says("pod", "del", pod_name)


def test_exec_is_the_command_inside_the_pod(node1: Machine) -> None:
    web = node1.place("web")
    assert f"inet {web.address}/32" in node1.says("exec", "web", "--", "ip", "address")
    done = node1.types("exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert node1.types("exec", "web", "--", "sh", "-c", "kill -9 $$").returncode == -9
    assert node1.types("exec", "web", "true").returncode == 0


def test_exec_reaches_pods_of_a_daemon_that_ip_netns_exec_started(
    yard: Yard, node1: Machine, pod_name: str
) -> None:
    machine = yard.machines[2]
    machine.joins(node1)
    words = ("ip", "netns", "exec", machine.netns, *machine.words("up"))
    with background("/proc/self/ns/net", *words):
        eventually(lambda: machine.types("status").returncode == 0, within=SOON, poll=0.2)
        machine.says("pod", "add", pod_name)
        (pod,) = machine.shows("get", "pods", f"node3/{pod_name}")
        assert f"inet {pod['address']}/32" in machine.says("exec", pod_name, "ip", "address")
        machine.says("pod", "del", pod_name)
    assert not Path(pod["netns"]).exists()


def test_a_pod_of_another_node_is_worked_on_there(node1: Machine, node2: Machine) -> None:
    node2.says("pod", "add", "db")
    eventually(lambda: node1.types("get", "pods", "db").returncode == 0, within=SOON, poll=0.2)
    for words, what in (
        (("exec", "db", "--", "true"), "cannot run a command in pod db: pod db is on node2: run"),
        (("pod", "del", "db"), "cannot delete pod db: pod db is on node2: run"),
    ):
        done = node1.types(*words)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"muslin: {what}")


# -- up --------------------------------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """What a service manager listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(SOON)
        yield listening


def notified(manager: socket.socket, wanted: str) -> list[str]:
    """The lines of the next notification that is not about the watchdog."""
    while True:
        lines = manager.recv(4096).decode().split("\n")
        if lines != ["WATCHDOG=1"] or wanted == "WATCHDOG=1":
            assert lines[0] == wanted
            return lines


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_up_tells_the_service_manager_and_reloads_and_stops(
    yard: Yard, node1: Machine, manager: socket.socket, loop: str
) -> None:
    machine = yard.machines[2]
    machine.joins(node1)
    settings = machine.state / "config.toml"
    settings.write_text("")
    variables = (f"NOTIFY_SOCKET={manager.getsockname()}", "WATCHDOG_USEC=400000")
    with machine.running("up", "--loop", loop, before=("env", *variables)) as daemon:
        assert notified(manager, "READY=1") == ["READY=1", "STATUS=node node3"]
        assert notified(manager, "WATCHDOG=1")
        assert machine.ask("status")["node"] == "node3"

        settings.write_text('listen = "[::]:7000"\n[log]\nlevel = "debug"\n')
        daemon.process.send_signal(signal.SIGHUP)
        notified(manager, "RELOADING=1")
        notified(manager, "READY=1")
        assert "config.reloaded applied=log.level needs_restart=listen" in daemon.said()

        settings.write_text("[log]\nlevel = 'loud'\n")
        daemon.process.send_signal(signal.SIGHUP)
        notified(manager, "RELOADING=1")
        notified(manager, "READY=1")
        assert "config.refused" in daemon.said()
        assert machine.ask("status")["node"] == "node3"

        stop = signal.SIGTERM if loop == "uvloop" else signal.SIGINT
        daemon.process.send_signal(stop)
        notified(manager, "STOPPING=1")
        assert daemon.process.wait(SOON) == 0
        assert "Traceback" not in daemon.said()
        assert daemon.rest(SOON) == "", "logs go to stderr"
    assert not (machine.state / "control.sock").exists()
    settings.unlink()
