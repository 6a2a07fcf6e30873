"""Tests of commands in namespaces, as far as they need none."""

from __future__ import annotations

import signal
import subprocess
import sys

from bench import shell


def start(code: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def test_a_command_runs_in_the_namespace_that_is_named():
    assert shell.inside("x", "ping", "-c", "1") == ["ip", "netns", "exec", "x", "ping", "-c", "1"]


def test_ending_is_polite_at_first():
    process = start("print('up', flush=True)\nimport signal; signal.pause()")
    shell.end(process)
    assert process.returncode == -signal.SIGTERM


def test_ending_who_does_not_listen_takes_force(monkeypatch):
    monkeypatch.setattr(shell, "END_PATIENCE", 0.05)
    process = start(
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\n"
        "while True: signal.pause()"
    )
    shell.end(process)
    assert process.returncode == -signal.SIGKILL


def test_ending_what_has_ended_is_fine():
    process = start("print('up', flush=True)")
    process.wait()
    shell.end(process)
    assert process.returncode == 0
