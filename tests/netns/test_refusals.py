"""Wrong use on a real machine: one clear line, the right exit code, and nothing changed.

    muslin-test-PID-refusals: lo, and eth0 10.9.0.1/24 to a peer that nobody uses

The same commands as a person would type, as processes of their own.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from node.control.client import ControlClient
from node.control.schema import ControlError
from node.kernel import netns
from tests.arch.project import ROOT
from tests.support.privileged import NEEDS_KERNEL

pytestmark = NEEDS_KERNEL

PATIENCE = 20.0
NOBODY = 65534


class Ran(NamedTuple):
    """What came of a command."""

    code: int
    out: str
    err: str


class Machine:
    """A namespace to be wrong in."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, *words: str, prefix: tuple[str, ...] = ()) -> Ran:
        argv = [*prefix, sys.executable, "-m", "node", *words]
        ran = netns.run_in(
            self.name,
            subprocess.run,
            argv,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def ip(self, words: str) -> None:
        subprocess.run(["ip", "-n", self.name, *words.split()], check=True)

    def links(self) -> str:
        shown = subprocess.run(
            ["ip", "-n", self.name, "-br", "link"], capture_output=True, text=True
        )
        return " ".join(line.split()[0] for line in shown.stdout.splitlines())

    @contextmanager
    def daemon(self, state: Path) -> Iterator[int]:
        """A running daemon; its process id."""
        argv = [sys.executable, "-m", "node", "--state", str(state), "up"]
        process = netns.run_in(
            self.name, subprocess.Popen, argv, cwd=ROOT, stderr=subprocess.DEVNULL
        )
        try:
            wait_for_answer(state)
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0


def wait_for_answer(state: Path) -> None:
    done = threading.Event()
    for _ in range(int(PATIENCE / 0.05)):
        try:
            ControlClient(state / "control.sock").call("status")
        except ControlError:
            done.wait(0.05)
        else:
            return
    pytest.fail("the daemon did not come up")


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    made = Machine(f"muslin-test-{os.getpid()}-refusals")
    netns.create(made.name)
    try:
        for words in (
            "link set lo up",
            "link add eth0 type veth peer name far",
            "addr add 10.9.0.1/24 dev eth0",
            "link set eth0 up",
            "link set far up",
        ):
            made.ip(words)
        yield made
    finally:
        netns.delete(made.name)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "node"


@pytest.fixture
def founded(machine: Machine, state: Path) -> Path:
    """The state folder of a node that was never started."""
    assert machine.run("--state", str(state), "init", "--name", "a").code == 0
    return state


def refused(ran: Ran, *clauses: str, code: int = 1) -> None:
    assert ran.code == code, ran
    assert ran.out == ""
    assert ran.err.startswith("muslin: "), ran.err
    assert ran.err.count("\n") == 1, ran.err
    for clause in clauses:
        assert clause in ran.err


def test_up_before_init(machine: Machine, state: Path) -> None:
    refused(machine.run("--state", str(state), "up"), "holds no node yet", "muslin init")


def test_a_range_that_overlaps_a_route_of_the_host(machine: Machine, state: Path) -> None:
    ran = machine.run("--state", str(state), "init", "--name", "a", "--cidr", "10.0.0.0/8")
    refused(ran, "10.0.0.0/8 overlaps the host route 10.9.0.0/24 dev eth0", "another --cidr")
    assert not state.exists()


def test_a_route_that_came_after_init(machine: Machine, founded: Path) -> None:
    machine.ip("route add 10.244.7.0/24 dev eth0")
    try:
        ran = machine.run("--state", str(founded), "up")
    finally:
        machine.ip("route del 10.244.7.0/24 dev eth0")
    refused(ran, "overlaps the host route 10.244.7.0/24 dev eth0")
    assert machine.links() == "lo far@eth0 eth0@far"


def test_no_tun_device(machine: Machine, founded: Path) -> None:
    script = 'mount -t tmpfs none /dev/net && exec "$0" "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", script)
    ran = machine.run("--state", str(founded), "up", prefix=prefix)
    refused(ran, "there is no /dev/net/tun", "modprobe tun")


def test_no_root(machine: Machine, founded: Path) -> None:
    prefix = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    ran = machine.run("--state", str(founded), "up", prefix=prefix)
    refused(ran, "CAP_NET_ADMIN")


def test_a_port_in_use(machine: Machine, founded: Path) -> None:
    other = netns.run_in(machine.name, socket.socket, socket.AF_INET6, socket.SOCK_DGRAM)
    with other:
        other.bind(("::", 6875))
        refused(machine.run("--state", str(founded), "up"), "6875", "in use")
    assert machine.links() == "lo far@eth0 eth0@far"


def test_a_folder_in_use_and_an_unknown_node(machine: Machine, founded: Path) -> None:
    with machine.daemon(founded) as pid:
        ran = machine.run("--state", str(founded), "up")
        refused(ran, f"{founded} is in use by process {pid}", "--state")
        refused(machine.run("--state", str(founded), "init", "--name", "b"), "already holds a node")
        refused(machine.run("--state", str(founded), "ping", "node9"), "node9", "nodes are: a")
        refused(machine.run("--state", str(founded), "get", "node", "node9"), "nodes are: a")
        refused(machine.run("--state", str(founded), "exec", "web", "--", "true"), "no pod web")
        refused(machine.run("--state", str(founded), "pod", "del", "web"), "no pod web")
        ran = machine.run("--state", str(founded), "pod", "add", "web", "--netns", "nowhere")
        refused(ran, "there is no namespace")
        assert ControlClient(founded / "control.sock").call("get", kind="pods") == []


def test_a_damaged_file(machine: Machine, founded: Path) -> None:
    content = bytearray((founded / "state").read_bytes())
    content[-1] ^= 1
    (founded / "state").write_bytes(content)
    ran = machine.run("--state", str(founded), "up")
    refused(ran, f"{founded / 'state'} is damaged", "restore it from a backup")


@pytest.fixture
def inviting(machine: Machine, founded: Path) -> Iterator[Path]:
    """The state folder of a running node that others can be invited to."""
    (founded / "config.toml").write_text('advertise = ["10.9.0.1"]\n')
    with machine.daemon(founded):
        yield founded


def token(machine: Machine, state: Path, *flags: str) -> str:
    ran = machine.run("--state", str(state), "token", *flags)
    assert ran.code == 0
    return ran.out.strip()


def test_a_token_that_is_wrong_or_used_up(machine: Machine, inviting: Path, tmp_path: Path) -> None:
    good = token(machine, inviting)
    second = str(tmp_path / "second")
    refused(machine.run("--state", second, "join", "hello"), "not a join token")
    refused(machine.run("--state", second, "join", good[:-3]), "damaged")
    refused(machine.run("--state", second, "join", good, "--name", "a"), "named a", "--name")
    assert {path.name for path in Path(second).iterdir()} <= {"lock"}, (
        "what was refused left nothing"
    )
    assert machine.run("--state", second, "join", good, "--name", "b").code == 0
    third = str(tmp_path / "third")
    refused(machine.run("--state", third, "join", good, "--name", "c"), "admitted a node already")
    assert {path.name for path in Path(third).iterdir()} <= {"lock"}


def test_a_token_that_has_expired(machine: Machine, inviting: Path, tmp_path: Path) -> None:
    old = token(machine, inviting, "--ttl", "1s")
    threading.Event().wait(1.1)
    refused(machine.run("--state", str(tmp_path / "b"), "join", old), "expired", "another token")


def test_no_reachable_member(machine: Machine, inviting: Path, tmp_path: Path) -> None:
    good = token(machine, inviting)
    with machine_without_member() as alone:
        ran = alone.run("--state", str(tmp_path / "b"), "join", good, "--name", "b")
    refused(ran, "nobody answered at 10.9.0.1:6875")
    assert not (tmp_path / "b" / "identity.key").exists()


@contextmanager
def machine_without_member() -> Iterator[Machine]:
    alone = Machine(f"muslin-test-{os.getpid()}-alone")
    netns.create(alone.name)
    try:
        alone.ip("link set lo up")
        yield alone
    finally:
        netns.delete(alone.name)
