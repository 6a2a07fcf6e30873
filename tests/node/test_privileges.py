"""What privileges are given up: in processes of their own, because nothing brings them back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from node import children
from node.privileges import ALWAYS, Capability, read_sets

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

STATUS = "import sys; sys.stdout.write(open('/proc/self/status').read())"


def said(script: str, *argv: object) -> str:
    """What a script says that runs in a process of its own."""
    command = [sys.executable, "-c", script, *map(str, argv)]
    done = subprocess.run(
        command, env=children.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def status(text: str) -> dict[str, str]:
    """/proc/PID/status as fields."""
    return {
        key: value.strip() for key, _, value in (row.partition(":") for row in text.split("\n"))
    }


def bits(*capabilities: Capability) -> int:
    return sum(1 << capability for capability in capabilities)


NARROW = """
import subprocess, sys
from pathlib import Path
from node import privileges
privileges.narrow(Path(sys.argv[1]), int(sys.argv[2]))
"""
CHILD = f"subprocess.run([sys.executable, '-c', {STATUS!r}], check=True)"


@NEEDS_ROOT
def test_a_narrowed_process_and_all_that_it_starts_have_what_is_needed(tmp_path: Path) -> None:
    for then in (STATUS, CHILD):
        found = status(said(NARROW + then, tmp_path, 6875))
        for key in ("CapEff", "CapPrm", "CapBnd"):
            assert int(found[key], 16) == bits(*ALWAYS), (key, then)
        assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == 0
        assert found["NoNewPrivs"] == "1"


@NEEDS_ROOT
def test_threads_that_come_later_are_as_narrow(tmp_path: Path) -> None:
    look = (
        "import threading; t = threading.Thread(target=lambda: "
        "print(open('/proc/thread-self/status').read())); t.start(); t.join()"
    )
    found = status(said(NARROW + look, tmp_path, 6875))
    assert int(found["CapPrm"], 16) == bits(*ALWAYS)


@NEEDS_ROOT
def test_a_port_below_1024_can_be_bound_again_later(tmp_path: Path) -> None:
    found = status(said(NARROW + STATUS, tmp_path, 443))
    assert int(found["CapEff"], 16) == bits(*ALWAYS, Capability.NET_BIND_SERVICE)


@NEEDS_ROOT
def test_a_folder_of_somebody_else_stays_usable(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    folder.mkdir(0o700)
    (folder / "state").touch(0o600)
    for strange in (folder, folder / "state"):
        os.chown(strange, 65534, 65534)
        write = NARROW + "open(sys.argv[1] + '/state', 'a').write('x')\n" + STATUS
        found = status(said(write, folder, 6875))
        assert int(found["CapEff"], 16) == bits(*ALWAYS, Capability.DAC_OVERRIDE)
        os.chown(strange, 0, 0)
    assert int(status(said(NARROW + STATUS, folder, 6875))["CapEff"], 16) == bits(*ALWAYS)


def test_dropping_all_leaves_nothing_and_nothing_comes_back() -> None:
    drop = "import subprocess, sys\nfrom node import privileges\nprivileges.drop_all()\n"
    for then in (STATUS, CHILD):
        found = status(said(drop + then))
        for key in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            assert int(found[key], 16) == 0
        assert found["NoNewPrivs"] == "1"


def test_secrets_are_kept_from_core_dumps_and_from_others(tmp_path: Path) -> None:
    script = (
        "import ctypes, os, resource, sys\n"
        "from node import privileges\n"
        "privileges.keep_secrets()\n"
        "os.close(os.open(sys.argv[1], os.O_CREAT, 0o666))\n"
        "PR_GET_DUMPABLE = 3\n"
        "print(ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0))\n"
        "print(*resource.getrlimit(resource.RLIMIT_CORE))\n"
    )
    made = tmp_path / "made"
    assert said(script, made).split() == ["0", "0", "0"]
    assert made.stat().st_mode & 0o777 == 0o600


def test_the_sets_of_this_process_are_those_that_the_kernel_shows() -> None:
    found = status(Path("/proc/thread-self/status").read_text())
    shown = [int(found[key], 16) for key in ("CapEff", "CapPrm", "CapInh")]
    assert list(read_sets()) == shown
