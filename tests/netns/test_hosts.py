"""What tests of container engines stand on: hosts that share a kernel and nothing else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosts import Host, hosting, stop
from tests.support.labs import Place
from tests.support.machines import YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import PATIENCE
from tests.support.traffic import is_answered

pytestmark = NEEDS_KERNEL

FOLDERS = ("/etc", "/opt", "/usr/lib", "/var/lib", "/var/lib/containerd", "/run", "/dev/shm")


@pytest.fixture(scope="module")
def hosts(make_module_yard: YardMaker) -> Iterator[list[Host]]:
    with hosting(make_module_yard(2)) as made:
        yield made


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_file_of_a_host_is_seen_by_no_other_host_and_not_by_the_machine(
    hosts: list[Host], folder: str
) -> None:
    path = f"{folder}/muslin-test/{os.getpid()}"
    hosts[0].write(path, "mine")
    assert hosts[0].run("cat", path) == "mine"
    assert hosts[1].attempt("cat", path).returncode != 0
    assert not Path(path).parent.exists()


def test_daemon_and_commands_of_a_host_see_the_same_namespaces(hosts: list[Host]) -> None:
    host = hosts[0]
    host.says("pod", "add", "web")
    (pod,) = host.machine.get("pods")
    assert f"inet {pod['address']}/32" in host.run(
        "nsenter", f"--net={pod['netns']}", "ip", "address"
    )
    assert not Path(pod["netns"]).exists(), "it is in the host's own /run"


def test_pods_of_two_hosts_reach_each_other(hosts: list[Host]) -> None:
    for host in hosts:
        host.says("pod", "add", f"of-{host.name}")
    first, second = (
        next(row for row in host.machine.get("pods") if row["name"] == f"of-{host.name}")
        for host in hosts
    )
    for source, target, host in ((first, second, hosts[0]), (second, first, hosts[1])):
        for address in (target["address"], target["address6"]):
            host.says("exec", source["name"], "--", "ping", "-c1", "-W15", address)


def test_what_was_started_on_a_host_ends_with_it(make_yard: YardMaker) -> None:
    (machine,) = make_yard(1).machines
    with Host(machine) as host:
        detached = host.start(machine.log, "sh", "-c", "setsid sleep 1000 & echo; wait")
        own = host.run("findmnt", "-no", "TARGET", "-t", "tmpfs")
        assert is_answered(Place("", "", machine.netns, "", ""), machine.address)
    assert detached.wait(PATIENCE) != 0
    (folder,) = (path for path in own.splitlines() if Path(path).name.startswith("muslin-host-"))
    assert not Path(folder).exists()
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert folder not in left


def test_a_daemon_on_a_host_is_ended_and_started_again(hosts: list[Host]) -> None:
    host = hosts[0]
    before = host.machine.pid
    host.down(kill=True)
    assert host.machine.pid is None
    host.up()
    assert host.machine.pid not in {None, before}
    with pytest.raises(AssertionError, match="no-such-command"):
        host.run("sh", "-c", "no-such-command")
    with host.background(host.machine.log, "sleep", 1000) as process:
        stop(process)
    assert process.returncode == -15
