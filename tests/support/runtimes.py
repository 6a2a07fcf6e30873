"""containerd and podman on a host, each set up so that it works in a test's surroundings.

A test's machine may lack the right to raise limits (CAP_SYS_RESOURCE) and systemd, and its control
groups are everybody's: so no engine makes control groups, raises limits or asks systemd. None of
this has to do with networks, which are configured by `muslin cni install` alone.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from node.kernel import netns
from tests.support import images
from tests.support.cri import SOCKET, Cri, CriError
from tests.support.hosts import Host, stop
from tests.support.processes import PATIENCE
from tests.support.waiting import eventually

START_PATIENCE = 60.0

_CONTAINERD = f"""
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{images.NAME}"
  disable_cgroup = true
  disable_apparmor = true
  restrict_oom_score_adj = true
"""
_PODMAN = """
[containers]
cgroups = "disabled"
default_ulimits = []
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
[network]
network_backend = "cni"
"""


def needs(*commands: str) -> pytest.MarkDecorator:
    """For tests that want engines: `scripts/setup --engines` installs them."""
    missing = [command for command in commands if shutil.which(command) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def install(host: Host, *options: object) -> str:
    """Do what the README says is to be done on Debian before `muslin cni install`, and that."""
    host.run("mkdir", "-p", "/opt/cni")
    host.run("ln", "-s", "/usr/lib/cni", "/opt/cni/bin")
    return host.says("cni", "install", *options)


@dataclass(frozen=True)
class Remains:
    """What a container can leave behind on a host: compare before with after.

    Args:
        links: of the node's namespace.
        routes: of both families, in order.
        neighbours: that are there for ever.
        rules: of the packet filter, without what they counted.
        namespaces: that have a name.
        files: of libcni and of plugins.
        pods: of the daemon.
    """

    links: list[str]
    routes: list[str]
    neighbours: list[str]
    rules: str
    namespaces: list[str]
    files: list[str]
    pods: list[str]

    @classmethod
    def of(cls, host: Host) -> Remains:
        """What is there now."""

        def lines(*argv: str) -> list[str]:
            return sorted(host.run(*argv).splitlines())

        links = json.loads(host.run("ip", "-j", "link"))
        pods = host.machine.get("pods")
        return cls(
            sorted(link["ifname"] for link in links),
            lines("ip", "route") + lines("ip", "-6", "route"),
            lines("ip", "neigh", "show", "nud", "permanent"),
            host.run("nft", "--stateless", "list", "ruleset"),
            lines("sh", "-c", "ls /run/netns 2>/dev/null || true"),
            lines("sh", "-c", "find /var/lib/cni -type f 2>/dev/null || true"),
            sorted(pod["name"] for pod in pods if pod["node"] == host.name),
        )


def asked_at(namespace: str, address: str, port: int) -> str:
    """What a TCP server says to somebody who connects from a namespace of the machine's."""

    def ask() -> bytes:
        with socket.create_connection((address, port), timeout=PATIENCE) as connection:
            return connection.recv(100)

    return netns.run_in(namespace, ask).decode().strip()


def answering(port: int, word: str) -> tuple[str, ...]:
    """The command of a container that says `word` to everybody who connects."""
    return ("nc", "-ll", "-p", str(port), "-e", "echo", word)


class Containerd:
    """containerd on a host, for the time of a `with` block.

    Args:
        host: where.
        image: file of the only image that there is.
    """

    def __init__(self, host: Host, image: Path) -> None:
        self.host = host
        self.cri = Cri(host)
        self._image = image
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.host.write("/etc/containerd/config.toml", _CONTAINERD)
        self.start()
        for namespace in ("k8s.io", "default"):
            self.ctr("-n", namespace, "images", "import", self._image)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        tasks = "/run/containerd/io.containerd.runtime.v2.task"
        left = self.host.attempt("find", tasks, "-mindepth", 2, "-maxdepth", 2, "-printf", "%f\n")
        self.host.containers.update(left.stdout.split())

    def start(self) -> None:
        """Start the engine and wait until it answers."""
        log = self.host.machine.log.with_suffix(".containerd")
        self._process = self.host.start(log, "containerd")

        def answers() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, log.read_text()
            try:
                return bool(self.cri.call("Version"))
            except (AssertionError, CriError):
                return False

        eventually(answers, within=START_PATIENCE)

    def stop(self) -> None:
        """End the engine; its containers go on."""
        if self._process is not None:
            stop(self._process)
            self._process = None

    def ctr(self, *words: object) -> str:
        """What containerd's own client prints; it has to succeed."""
        return self.host.run("ctr", *words)


class Podman:
    """podman on a host; it has no daemon.

    Args:
        host: where.
        image: file of the only image that there is.
    """

    def __init__(self, host: Host, image: Path) -> None:
        self.host = host
        host.write("/etc/containers/containers.conf", _PODMAN)
        self("load", "--quiet", "--input", image)

    def __call__(self, *words: object) -> str:
        """What a command prints; it has to succeed."""
        return self.host.run("podman", *words).strip()

    def run(self, name: str, network: str, *options: object, command: tuple[str, ...] = ()) -> str:
        """Run a container in the background; its id."""
        asked = ("run", "--detach", "--name", name, "--network", network, *options)
        return self(*asked, images.NAME, *command)

    def networks(self, name: str) -> dict[str, Any]:
        """What `podman inspect` shows of a container's networks, by name."""
        (shown,) = json.loads(self("inspect", "--type", "container", name))
        networks = shown["NetworkSettings"]["Networks"]
        assert isinstance(networks, dict)
        return networks
