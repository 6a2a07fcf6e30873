"""The systemd unit: systemd understands it, and a node works under what it allows.

There is no systemd in a test, but most of a service's sandbox is what a process can do to itself
(`tests.support.sandbox`). What is left out are the cgroup's device list, and the mount namespace of
`strict.conf`, of which only the grammar is checked.
"""

from __future__ import annotations

import ctypes.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.privileges import ALWAYS, Capability
from tests.support.machines import MUSLIN, Machine, Yard, YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import Background, attempt, background, run
from tests.support.sandbox import allowed_calls, settings
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "muslin.service"
STRICT = ROOT / "deploy" / "muslin.service.d" / "strict.conf"
SOON = 20.0
WORST = {"alone": 4.9, "strict": 3.6}
"""Exposure that `systemd-analyze security` may find; a root service without a sandbox has 9.6."""

NEEDS_SYSTEMD = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze"
)
NEEDS_SECCOMP = pytest.mark.skipif(
    ctypes.util.find_library("seccomp") is None, reason="needs libseccomp"
)


@pytest.fixture(params=[False, True], ids=["alone", "strict"])
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unit as it is installed, with the command where it is here."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/muslin", MUSLIN))
    if request.param:
        folder = tmp_path / STRICT.parent.name
        folder.mkdir()
        shutil.copy(STRICT, folder)
    return unit


def analyze(*words: object) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@NEEDS_SYSTEMD
def test_systemd_understands_every_line(installed: Path) -> None:
    done = analyze("verify", "--man=no", installed)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@NEEDS_SYSTEMD
def test_systemd_finds_no_more_exposed(installed: Path) -> None:
    said = analyze("security", "--offline=true", installed).stdout
    found = re.search(r"Overall exposure level for muslin\.service: ([0-9.]+)", said)
    assert found, said
    strict = (installed.parent / STRICT.parent.name).exists()
    assert float(found[1]) <= WORST["strict" if strict else "alone"]


def test_the_unit_leaves_the_daemon_what_the_daemon_would_keep() -> None:
    (kept,) = settings(UNIT)["CapabilityBoundingSet"]
    needed = {f"CAP_{capability.name}" for capability in (*ALWAYS, Capability.NET_BIND_SERVICE)}
    assert set(kept.split()) == needed


def test_nothing_takes_the_mounts_of_the_daemon_from_the_machine() -> None:
    """Each of these gives a service a mount namespace; systemd.exec(5), PrivateMounts=."""
    hiding = {"ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateMounts"}
    hiding |= {"ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectProc"}
    hiding |= {"ProtectControlGroups", "ReadOnlyPaths", "InaccessiblePaths", "RootDirectory"}
    assert not hiding & settings(UNIT).keys()
    assert "ProtectKernelTunables" not in settings(STRICT), "sysctls of pods' links are set"


@contextmanager
def serving(machine: Machine, *variables: str) -> Iterator[Background]:
    """The daemon of a machine in the sandbox of the unit, for the time of a `with` block."""
    inside = [sys.executable, "-m", "tests.support.sandbox", str(UNIT), "--"]
    command = machine.words("up", "--lanes", "2")
    with background(machine.netns, "env", *variables, *inside, *command) as daemon:
        eventually(lambda: answers(machine), within=SOON)
        yield daemon


def answers(machine: Machine) -> bool:
    return machine.types("status").returncode == 0


@pytest.fixture(scope="module")
def yard(make_module_yard: YardMaker) -> Yard:
    """Two machines whose nodes are members of a cluster."""
    made = make_module_yard(2)
    made.found()
    made.join(made.machines[1])
    made.machines[0].says("pod", "add", "web")
    made.machines[1].stop()
    return made


@NEEDS_SYSTEMD
@NEEDS_SECCOMP
@pytest.mark.netns
class TestSandboxed:
    """A node of which all that systemd would forbid is forbidden."""

    pytestmark = NEEDS_KERNEL

    def test_it_does_all_that_a_node_does(self, yard: Yard) -> None:
        first, second = yard.machines
        with serving(second) as daemon:
            far = first.get("pods")[0]["address"]
            for number in range(2):
                made = second.ask("pod.add", name=f"job{number}")
                space = made["netns"]
                eventually(lambda space=space: answered(space, far), within=SOON)
            pid = second.ask("status")["pid"]
            os.kill(pid, signal.SIGHUP)
            run(second.netns, "ip", "link", "del", "muslin0")
            eventually(lambda: answered(space, far), within=SOON)
            lane = eventually(lambda: other_lane(second), within=SOON)
            os.kill(lane, signal.SIGKILL)
            eventually(lambda: other_lane(second) not in (0, lane), within=SOON)
            eventually(lambda: second.types("ping", first.name).returncode == 0, within=SOON)
            assert second.ask("status")["guard"]["by"] == "nft"
            second.says("pod", "del", "job0")
            assert not Path(space.replace("job1", "job0")).exists()
            eventually(lambda: second.ask("status")["problems"] == [], within=SOON)
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.process.wait(SOON) == 0

    def test_it_tells_the_service_manager_how_it_is(self, yard: Yard, tmp_path: Path) -> None:
        path = str(tmp_path / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(path)
            manager.settimeout(SOON)
            variables = (f"NOTIFY_SOCKET={path}", "WATCHDOG_USEC=200000")
            heard = ""
            with serving(yard.machines[1], *variables) as daemon:
                while "WATCHDOG=1" not in heard:
                    heard += manager.recv(4096).decode()
                assert "READY=1" in heard
                daemon.process.send_signal(signal.SIGHUP)
                while "RELOADING=1" not in heard:
                    heard += manager.recv(4096).decode()
                daemon.process.send_signal(signal.SIGTERM)
                while "STOPPING=1" not in heard:
                    heard += manager.recv(4096).decode()

    def test_what_the_unit_forbids_is_forbidden(self, yard: Yard) -> None:
        script = (
            "import ctypes, socket\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            "def tried(name, call, *arguments):\n"
            "    done = call(*arguments)\n"
            "    print(name, 'refused' if done and ctypes.get_errno() == 1 else 'allowed')\n"
            "tried('mounts', libc.unshare, 0x20000)\n"
            "tried('users', libc.unshare, 0x10000000)\n"
            "tried('host', libc.sethostname, None, -1)\n"
            "tried('reboot', libc.reboot, 0)\n"
            "tried('network', libc.unshare, 0x40000000)\n"
            "try:\n"
            "    socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n"
            "    print('packets allowed')\n"
            "except OSError:\n"
            "    print('packets refused')\n"
        )
        inside = [sys.executable, "-m", "tests.support.sandbox", str(UNIT), "--"]
        said = run(yard.machines[1].netns, *inside, sys.executable, "-c", script)
        assert said.split("\n")[:-1] == [
            "mounts refused",
            "users refused",
            "host refused",
            "reboot refused",
            "network allowed",
            "packets refused",
        ]


def answered(namespace: str, address: str) -> bool:
    return attempt(namespace, "ping", "-c1", "-W1", address).returncode == 0


def other_lane(machine: Machine) -> int:
    """The process of lane 1; 0 while it is not up."""
    _, lane = machine.ask("status")["lanes"]
    return int(lane["pid"]) if lane["state"] == "up" else 0


@NEEDS_SYSTEMD
def test_later_lines_of_the_filter_take_away_from_earlier_ones() -> None:
    calls = allowed_calls(settings(UNIT)["SystemCallFilter"])
    assert {"mount", "umount2", "setns", "read", "capset"} <= calls
    assert not {"bpf", "reboot", "init_module", "ptrace", "add_key", "settimeofday"} & calls
