from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node import children
from node.errors import NodeError
from node.lab import processes
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import PATIENCE
from tests.support.waiting import eventually

FAKE = """
import os, signal, sys, time
if "up" in sys.argv:
    if "stubborn" in os.environ.get("MUSLIN_TEST", ""):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
    time.sleep(60)
elif "fail" in sys.argv:
    sys.exit("noise\\nmuslin: cannot join: the token is wrong")
print(os.environ.get("MUSLIN_TEST"), os.environ.get("MUSLIN_STATE"))
"""
OWN = "/proc/self/ns/net"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder, and a `python -m node` that only waits."""
    (tmp_path / "code" / "node").mkdir(parents=True)
    (tmp_path / "code" / "node" / "__main__.py").write_text(FAKE)
    monkeypatch.setattr(children, "PACKAGES", tmp_path / "code")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "node1"
    yield folder
    processes.end_all(folder, patience=2.0)


def test_daemons_run_this_code_and_know_nothing_of_our_own_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MUSLIN_STATE", "/somewhere")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    variables = processes.environment({"MUSLIN_LOOP": "asyncio"})
    assert variables["MUSLIN_LOOP"] == "asyncio"
    assert variables["PYTHONPATH"].startswith(str(children.PACKAGES))
    assert not {"MUSLIN_STATE", "NOTIFY_SOCKET"} & variables.keys()


def test_the_command_line_names_the_state_folder() -> None:
    assert processes.command(Path("/x/node1"), "join", "T") == [
        sys.executable, "-m", "node", "--state", "/x/node1", "join", "T",
    ]  # fmt: skip


class TestWithRealProcesses:
    pytestmark = NEEDS_KERNEL

    def start(self, state: Path, log: Path, **settings: str) -> int:
        pid = processes.start_daemon(OWN, state, log, settings)
        while not (log.exists() and "ready" in log.read_text()):
            os.sched_yield()
        return pid

    def test_a_verb_gives_its_output_or_its_reason(self, state: Path) -> None:
        argv = processes.command(state, "init")
        assert processes.run_command(OWN, argv, {"MUSLIN_TEST": "x"}) == "x None\n"
        with pytest.raises(NodeError, match=r"^cannot join: the token is wrong$"):
            processes.run_command(OWN, processes.command(state, "fail"), {})

    def test_a_verb_that_hangs_is_given_up(
        self, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(processes, "COMMAND_PATIENCE", 0.2)
        with pytest.raises(NodeError, match="more than"):
            processes.run_command(OWN, processes.command(state, "up"), {})

    def test_a_daemon_is_found_by_its_folder_and_ended(self, state: Path, tmp_path: Path) -> None:
        assert processes.daemon_pid(state) is None
        pid = self.start(state, tmp_path / "log")
        assert processes.daemon_pid(state) == pid
        assert not processes.has_ended(pid)
        assert os.getsid(pid) == pid
        assert processes.daemon_pid(tmp_path / "node") is None
        assert processes.signal_daemon(state, signal.SIGTERM, PATIENCE)
        assert processes.daemon_pid(state) is None
        assert processes.has_ended(pid)
        assert not processes.signal_daemon(state, signal.SIGTERM, PATIENCE)

    def test_all_daemons_of_a_lab_are_ended_at_once(self, state: Path, tmp_path: Path) -> None:
        other = state.with_name("node2")
        self.start(state, tmp_path / "log")
        self.start(other, tmp_path / "log2")
        processes.end_all(tmp_path.parent, patience=0.1)
        assert processes.daemon_pid(state) is not None
        processes.end_all(tmp_path)
        assert processes.daemon_pid(state) is None
        assert processes.daemon_pid(other) is None

    def test_a_daemon_that_does_not_listen_is_killed(self, state: Path, tmp_path: Path) -> None:
        self.start(state, tmp_path / "log", MUSLIN_TEST="stubborn")
        with pytest.raises(NodeError, match="did not end"):
            processes.signal_daemon(state, signal.SIGTERM, 0.1)
        processes.end_all(state, patience=0.1)
        eventually(lambda: processes.daemon_pid(state) is None, within=PATIENCE)

    def test_processes_that_only_mention_the_folder_are_let_live(self, state: Path) -> None:
        bystander = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(60)", "--state", str(state), "up"]
        )
        try:
            processes.end_all(state, patience=0.1)
            assert bystander.poll() is None
        finally:
            bystander.kill()
            bystander.wait()

    def test_a_program_that_cannot_start_is_an_error(
        self, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        with pytest.raises(NodeError, match="starting /no/such/python"):
            processes.start_daemon(OWN, state, tmp_path / "log", {})
