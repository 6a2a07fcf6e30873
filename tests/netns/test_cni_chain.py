"""The plugin in a chain with the standard plugins: they read its results, and it reads theirs.

    ptp -> muslin-cni -> portmap        Debian's containernetworking-plugins, which parse strictly

An outside check of every result that the specification has a form for.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.kernel import netns
from tests.support.machines import YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import PATIENCE, background, run
from tests.support.runtime import Runtime, interfaces

STANDARD = Path("/usr/lib/cni")
OLDER = ("0.3.1", "0.4.0", "1.0.0")
"""What those of Debian 12 speak."""

PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}

LISTENER = """
import socket
with socket.create_server(("", 80)) as listening:
    print("ready", flush=True)
    listening.accept()[0].close()
"""

pytestmark = [
    *NEEDS_KERNEL,
    pytest.mark.skipif(
        not (STANDARD / "portmap").exists(), reason="needs containernetworking-plugins"
    ),
]


@pytest.fixture(scope="module")
def runtime(
    make_module_yard: YardMaker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runtime]:
    machine = make_module_yard(1).found("--cidr6", "fd6d:7573:6c69::/56")
    return Runtime(machine, tmp_path_factory.mktemp("cni"))


@pytest.mark.parametrize("version", OLDER)
def test_portmap_publishes_a_port_of_a_pod_and_takes_it_back(
    runtime: Runtime, version: str
) -> None:
    portmap, more = STANDARD / "portmap", {"runtimeConfig": PORTS, "snat": True}
    with runtime.container() as container:
        added = runtime.call("ADD", container, version)
        assert added.code == 0, added.out
        published = runtime.chained(portmap, "ADD", container, version, **more)
        assert (published.code, published.said) == (0, added.said), published.out
        if version != "0.3.1":
            # Not portmap's own CHECK: version 1.1.1 looks for the IPv4 rules among those of IPv6.
            assert runtime.call("CHECK", container, version).code == 0
        with background(container.netns, sys.executable, "-c", LISTENER) as listener:
            assert listener.line(PATIENCE) == "ready"
            assert reaches_port(runtime)
        assert runtime.chained(portmap, "DEL", container, version, **more).code == 0
        assert runtime.call("DEL", container, version).code == 0
        assert "8080" not in run(runtime.machine.netns, "iptables-save", "-t", "nat")


def reaches_port(runtime: Runtime) -> bool:
    """Whether the host reaches the port at the node's own address."""

    def connect() -> bool:
        with socket.create_connection((runtime.machine.address, 8080), timeout=10):
            return True

    return netns.run_in(runtime.machine.netns, connect)


@pytest.mark.parametrize("version", OLDER)
def test_the_results_of_a_plugin_in_front_are_passed_on(
    runtime: Runtime, version: str, tmp_path: Path
) -> None:
    """`ptp` makes net0 with an address of its own; muslin-cni adds eth0; `tuning` reads both."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": "192.168.99.0/24"}]],
        "dataDir": str(tmp_path),
    }
    with runtime.container() as container:
        container.results["eth0"] = {}
        ptp = {"type": "ptp", "ipam": ipam, "name": "point"}
        first = runtime.other(STANDARD / "ptp", "ADD", container, version, "net0", **ptp)
        assert first.code == 0, first.out
        added = runtime.call("ADD", container, version, prevResult=first.said)
        assert added.code == 0, added.out
        result = added.said
        assert [one["name"] for one in result["interfaces"]][1::2] == ["net0", "eth0"]
        assert [entry["interface"] for entry in result["ips"]] == [1, 3, 3]
        assert set(interfaces(container)) == {"net0", "eth0"}
        tuned = runtime.chained(STANDARD / "tuning", "ADD", container, version)
        assert json.loads(tuned.out) == result, tuned.out
        if version != "0.3.1":
            assert runtime.call("CHECK", container, version).code == 0
        assert runtime.call("DEL", container, version).code == 0
        assert set(interfaces(container)) == {"net0"}
        gone = runtime.other(STANDARD / "ptp", "DEL", container, version, "net0", **ptp)
        assert gone.code == 0, gone.out
        assert runtime.host_ends() == {}
