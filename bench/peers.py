"""The compiled userspace overlays, as Debian ships them and set up as their documentation says.

Each runs one daemon per node, between the nodes' underlay addresses, with its default cipher and
its default MTU, and forwards between the plain pods:

    wireguard-go   AllowedIPs                             MTU 1420 (device/tun.go)
    nebula         certificates with subnets and          MTU 1300 (examples/config.yml)
                   unsafe_routes to them
    tinc           Subnet in the host files               MTU 1500 inside; it measures the path, and
                                                          clamps the MSS of TCP by itself

Configuration texts are functions of their parameters, so that they can be read and tested.
"""

from __future__ import annotations

import os
import subprocess
import time
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Final

from bench.contestants import Contestant, Running, route_through
from bench.shell import background, run
from bench.topology import Ground, Side, join_pods
from node.errors import NodeError

PATIENCE: Final = 15.0
"""Seconds until a daemon has made its interface, and again until the first ping comes through."""

POLL: Final = 0.05


class Peer(Contestant):
    """A contestant with a daemon on each node.

    Attributes:
        variables: of the daemon's environment, beside ours.
    """

    variables: ClassVar[Mapping[str, str]] = {}

    def start(self, ground: Ground, folder: Path, stack: ExitStack) -> Running:
        """Keys and configuration, then a daemon on each node, then routes, then a ping."""
        self.prepare(ground, folder)
        join_pods(ground, self.octet, self.mtu)
        pids = []
        for here, there in ground.both_ways():
            log = folder / f"{here.name}.log"
            argv = self.command(here, folder)
            environment = {**os.environ, **self.variables}
            process = stack.enter_context(
                background(here.node, *argv, log=log, variables=environment)
            )
            pids.append(process.pid)
            _await_link(here.node, self.link(here), process, log)
            self.configure(here, there, folder)
            route_through(self.octet, here, there, self.link(here))
        running = self.running(ground, tuple(pids))
        _await_ping(running)
        return running

    def link(self, side: Side) -> str:
        """Name of its interface: another one on each node, because sockets are named after it."""
        return f"{self.name[:4]}-bench{side.number}"

    @abstractmethod
    def prepare(self, ground: Ground, folder: Path) -> None:
        """Write keys and configuration of both nodes into the folder."""

    @abstractmethod
    def command(self, side: Side, folder: Path) -> list[str]:
        """The daemon's command line; it stays in the foreground."""

    def configure(self, here: Side, there: Side, folder: Path) -> None:
        """What is left to do when the interface is there."""


class WireguardGo(Peer):
    """WireGuard in Go; `wg` gives it its keys through a socket."""

    name = "wireguard-go"
    title = "wireguard-go"
    octet = 97
    mtu = 1420
    commands: ClassVar[tuple[str, ...]] = ("wireguard-go", "wg")
    package = "wireguard-go wireguard-tools"
    # On Linux it prints a warning and goes on only in the foreground or when told so.
    variables: ClassVar[Mapping[str, str]] = {"WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1"}
    port: ClassVar[int] = 51820

    def prepare(self, ground: Ground, folder: Path) -> None:
        """A key of each node and the file for `wg setconf`."""
        private = {side.name: run(side.node, "wg", "genkey").strip() for side in ground.sides}
        public = {
            side.name: run(side.node, "wg", "pubkey", text=private[side.name]).strip()
            for side in ground.sides
        }
        for here, there in ground.both_ways():
            text = wireguard_conf(private[here.name], public[there.name], there, self.port)
            _write(folder / f"{here.name}.conf", text)

    def command(self, side: Side, folder: Path) -> list[str]:
        """In the foreground."""
        return ["wireguard-go", "-f", self.link(side)]

    def configure(self, here: Side, there: Side, folder: Path) -> None:
        """Keys, peer and port."""
        run(here.node, "wg", "setconf", self.link(here), str(folder / f"{here.name}.conf"))

    def version(self) -> str:
        """As the binary says."""
        return _first_line("wireguard-go", "--version")


def wireguard_conf(private: str, public: str, there: Side, port: int) -> str:
    """The file for `wg setconf`.

    Args:
        private: this node's key.
        public: the other node's key.
        there: the other node.
        port: of both nodes.
    """
    octet = WireguardGo.octet
    return (
        f"[Interface]\nPrivateKey = {private}\nListenPort = {port}\n"
        f"[Peer]\nPublicKey = {public}\nEndpoint = {there.underlay}:{port}\n"
        f"AllowedIPs = 10.{octet}.0.{there.number}/32, 10.{octet}.{there.number}.0/24\n"
    )


class Nebula(Peer):
    """Slack's overlay, in Go: certificates, and a lighthouse, which is node 1."""

    name = "nebula"
    title = "nebula"
    octet = 96
    mtu = 1300
    commands: ClassVar[tuple[str, ...]] = ("nebula", "nebula-cert")
    package = "nebula"
    port: ClassVar[int] = 4242

    def prepare(self, ground: Ground, folder: Path) -> None:
        """An authority, a certificate of each node with its pods' subnet, and their files."""
        authority = ["-ca-crt", f"{folder}/ca.crt", "-ca-key", f"{folder}/ca.key"]
        first = ground.sides[0]
        run(first.node, "nebula-cert", "ca", "-name", "bench",
            "-out-crt", f"{folder}/ca.crt", "-out-key", f"{folder}/ca.key")  # fmt: skip
        for here, there in ground.both_ways():
            run(here.node, "nebula-cert", "sign", *authority, "-name", here.name,
                "-ip", f"10.{self.octet}.0.{here.number}/24",
                "-subnets", f"10.{self.octet}.{here.number}.0/24",
                "-out-crt", f"{folder}/{here.name}.crt",
                "-out-key", f"{folder}/{here.name}.key")  # fmt: skip
            text = nebula_yaml(here, there, folder, self.link(here), self.port)
            _write(folder / f"{here.name}.yml", text)

    def command(self, side: Side, folder: Path) -> list[str]:
        """It has no background mode."""
        return ["nebula", "-config", f"{folder}/{side.name}.yml"]

    def version(self) -> str:
        """As the binary says."""
        return "nebula " + _first_line("nebula", "-version").removeprefix("Version: ")


def nebula_yaml(here: Side, there: Side, folder: Path, link: str, port: int) -> str:
    """The configuration of a node: the documentation's example, reduced to what is needed here.

    Args:
        here: this node.
        there: the other one.
        folder: where certificates and keys are.
        link: name of the interface.
        port: of both nodes.
    """
    octet, lighthouse = Nebula.octet, here.number == 1
    return f"""pki:
  ca: {folder}/ca.crt
  cert: {folder}/{here.name}.crt
  key: {folder}/{here.name}.key
static_host_map:
  "10.{octet}.0.{there.number}": ["{there.underlay}:{port}"]
lighthouse:
  am_lighthouse: {"true" if lighthouse else "false"}
  hosts: [{"" if lighthouse else f'"10.{octet}.0.{there.number}"'}]
listen:
  host: 0.0.0.0
  port: {port}
tun:
  dev: {link}
  mtu: {Nebula.mtu}
  unsafe_routes:
    - route: 10.{octet}.{there.number}.0/24
      via: 10.{octet}.0.{there.number}
logging:
  level: warning
firewall:
  outbound:
    - {{port: any, proto: any, host: any}}
  inbound:
    - {{port: any, proto: any, host: any}}
"""


class Tinc(Peer):
    """tinc 1.0, in C, in router mode."""

    name = "tinc"
    title = "tinc"
    octet = 95
    commands: ClassVar[tuple[str, ...]] = ("tincd",)
    package = "tinc"

    def prepare(self, ground: Ground, folder: Path) -> None:
        """A folder of each node: its own key, and both host files."""
        for side in ground.sides:
            hosts = folder / side.name / "hosts"
            hosts.mkdir(parents=True)
            others = [other.name for other in ground.sides if other is not side]
            _write(hosts.parent / "tinc.conf", tinc_conf(side.name, others, self.link(side)))
            _write(hosts / side.name, tinc_host(side))
            run(side.node, "tincd", "-c", str(hosts.parent), "-K")
        for here, there in ground.both_ways():
            known = (folder / here.name / "hosts" / here.name).read_text()
            _write(folder / there.name / "hosts" / here.name, known)

    def command(self, side: Side, folder: Path) -> list[str]:
        """In the foreground, with its process id in the folder rather than in /run."""
        home = folder / side.name
        return ["tincd", "-c", str(home), "-D", f"--pidfile={home}/pid"]

    def version(self) -> str:
        """As the binary says."""
        return _first_line("tincd", "--version").partition(" (")[0]


def tinc_conf(name: str, others: list[str], link: str) -> str:
    """The file tinc.conf of a node."""
    lines = [f"Name = {name}", "Mode = router", f"Interface = {link}", "Device = /dev/net/tun"]
    return "\n".join([*lines, *(f"ConnectTo = {other}" for other in others), ""])


def tinc_host(side: Side) -> str:
    """The host file of a node, without its key."""
    octet = Tinc.octet
    return (
        f"Address = {side.underlay}\n"
        f"Subnet = 10.{octet}.0.{side.number}/32\nSubnet = 10.{octet}.{side.number}.0/24\n"
    )


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, "utf-8")


def _first_line(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return next(iter((done.stdout or done.stderr).strip().splitlines()), "unknown")


def _await_link(netns: str, link: str, process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while link not in run(netns, "ip", "-br", "link"):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip().splitlines()
            why = "ended" if ended else f"made no interface in {PATIENCE:g} s"
            raise NodeError(f"{link}: the daemon {why}: {said[-1] if said else 'it said nothing'}")
        time.sleep(POLL)


def _await_ping(running: Running) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            run(running.source, "ping", "-n", "-c", "1", "-W", "1", running.target)
            return
        except NodeError as error:
            if time.monotonic() > deadline:
                why = f"{running.name}: no ping to {running.target} in {PATIENCE:g} s"
                raise NodeError(why) from error
