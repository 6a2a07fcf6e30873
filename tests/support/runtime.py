"""The runtime's side of CNI, for tests: real plugin processes, in a node's namespace.

runtime = Runtime(machine, folder)        installs muslin-cni below `folder`
with runtime.container() as web:          a namespace, as a runtime makes one
    runtime.call("ADD", web, "1.0.0")     one process: exit code, standard output and error
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node.cni.install import install
from node.kernel import netns
from tests.support.cni import config
from tests.support.machines import Machine
from tests.support.processes import PATIENCE, run

NETWORK = "pods"
TUN = "muslin0"

_NUMBERS = itertools.count(1)


@dataclass
class Container:
    """A container, as far as networks know of it."""

    id: str
    netns: str
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the last ADD answered, by the interface's name."""


@dataclass(frozen=True)
class Called:
    """What one process said."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> dict[str, Any]:
        """Its answer; empty for none."""
        value = json.loads(self.out) if self.out else {}
        assert isinstance(value, dict)
        return value

    @property
    def error(self) -> int:
        """The code in its answer; 0 if it succeeded."""
        code = self.said.get("code", 0) if self.code else 0
        assert isinstance(code, int)
        return code


class Runtime:
    """A container runtime on one machine.

    Args:
        machine: where.
        folder: where the plugin is installed; has to be there.
        network: the network's name.
    """

    def __init__(self, machine: Machine, folder: Path, network: str = NETWORK) -> None:
        for name in ("bin", "net.d"):
            (folder / name).mkdir(exist_ok=True)
        self.machine = machine
        self.network = network
        self.bin = folder / "bin"
        self.plugin = install(self.bin, folder / "net.d", state=str(machine.state)).program

    @contextmanager
    def container(self) -> Iterator[Container]:
        """A container with a namespace of its own, which is gone afterwards."""
        number = next(_NUMBERS)
        path = netns.create(f"t{os.getpid()}-c{number}")
        try:
            yield Container(f"c0ffee{number:06x}", str(path))
        finally:
            if netns.exists(str(path)):
                netns.delete(path.name)

    @contextmanager
    def containers(self, count: int) -> Iterator[list[Container]]:
        """Several of them."""
        with self.container() as first:
            if count == 1:
                yield [first]
                return
            with self.containers(count - 1) as others:
                yield [first, *others]

    def call(
        self,
        verb: str,
        container: Container | None = None,
        version: str = "1.1.0",
        *,
        interface: str = "eth0",
        environ: dict[str, str | None] | None = None,
        given: str | None = None,
        **more: object,
    ) -> Called:
        """One verb, as libcni calls it.

        Args:
            verb: of the specification.
            container: whose; None for verbs that are not about one.
            version: of the configuration.
            interface: CNI_IFNAME.
            environ: variables to change, or with None to leave out.
            given: standard input instead of the configuration.
            more: keys of the configuration.
        """
        variables: dict[str, str | None] = {"CNI_COMMAND": verb, "CNI_PATH": str(self.bin)}
        if container is not None:
            variables |= {"CNI_CONTAINERID": container.id, "CNI_NETNS": container.netns}
            variables["CNI_IFNAME"] = interface
            known = container.results.get(interface)
            if known is not None and verb in {"CHECK", "DEL"} and version != "0.3.1":
                more.setdefault("prevResult", known)
        variables |= environ or {}
        if given is None:
            about = {"name": self.network, "state": str(self.machine.state), **more}
            given = json.dumps(config(version, **about))
        called = self._run(self.plugin, variables, given)
        if verb == "ADD" and called.code == 0 and container is not None:
            container.results[interface] = called.said
        return called

    def chained(
        self, plugin: Path, verb: str, container: Container, version: str, **more: object
    ) -> Called:
        """A verb of another plugin, behind ours in the chain."""
        about = {"name": self.network, "prevResult": container.results["eth0"], **more}
        return self.other(plugin, verb, container, version, "eth0", **about)

    def other(
        self,
        plugin: Path,
        verb: str,
        container: Container,
        version: str,
        interface: str,
        **more: object,
    ) -> Called:
        """A verb of another plugin."""
        variables: dict[str, str | None] = {
            "CNI_COMMAND": verb,
            "CNI_PATH": str(plugin.parent),
            "CNI_CONTAINERID": container.id,
            "CNI_NETNS": container.netns,
            "CNI_IFNAME": interface,
        }
        given = {"cniVersion": version, "type": plugin.name, **more}
        return self._run(plugin, variables, json.dumps(given))

    def _run(self, plugin: Path, variables: dict[str, str | None], given: str) -> Called:
        paths = {"PATH": os.environ["PATH"]}  # some plugins run iptables
        said = {key: value for key, value in variables.items() if value is not None}
        done = netns.run_in(
            self.machine.netns,
            subprocess.run,
            [plugin],
            env=paths | said,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE * 3,
        )
        return Called(done.returncode, done.stdout, done.stderr)

    def at_once(self, calls: Sequence[tuple[str, Container | None]], **more: Any) -> list[Called]:
        """Verbs that run at the same time."""
        with ThreadPoolExecutor(len(calls)) as pool:
            started = [pool.submit(self.call, verb, about, **more) for verb, about in calls]
            return [each.result() for each in started]

    # -- what is there afterwards ------------------------------------------------------------------

    def pods(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What the daemon has of containers, by container and interface."""
        rows = self.machine.get("pods")
        return {(row["container"], row["interface"]): row for row in rows if row.get("container")}

    def host_ends(self) -> dict[str, str]:
        """The node's ends of its pods' links, and their hardware addresses."""
        shown = json.loads(run(self.machine.netns, "ip", "-j", "link"))
        return {
            row["ifname"]: row["address"]
            for row in shown
            if row["ifname"].startswith("mus") and row["ifname"] != TUN
        }


def interfaces(container: Container) -> dict[str, dict[str, Any]]:
    """What is in a container's namespace besides loopback: links with `addresses`, by name."""
    shown = json.loads(run(container.netns, "ip", "-j", "addr"))
    return {
        row["ifname"]: {
            **row,
            "addresses": {f"{one['local']}/{one['prefixlen']}" for one in row["addr_info"]},
        }
        for row in shown
        if row["ifname"] != "lo"
    }


def ways_out(container: Container) -> set[tuple[str, str, str]]:
    """Default routes of a container: family, gateway, interface."""
    return {
        (family, route["gateway"], route["dev"])
        for family in ("4", "6")
        for route in json.loads(run(container.netns, "ip", "-j", f"-{family}", "route"))
        if route["dst"] == "default"
    }
