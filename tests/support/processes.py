"""Commands inside network namespaces: run to their end, or ended with a `with` block."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from node.kernel import netns
from node.lab.processes import environment

PATIENCE = 60.0
"""Seconds for what has no reason to take long, on a machine that is slow and busy besides."""

STOP_PATIENCE = 5.0


def attempt(
    namespace: str, *argv: str, timeout: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Run a command inside a namespace, whatever its exit code; it is killed after `timeout`."""
    return netns.run_in(
        namespace,
        subprocess.run,
        argv,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env=environment({}),
    )


def run(namespace: str, *argv: str, timeout: float = PATIENCE) -> str:
    """The output of a command inside a namespace, which has to succeed."""
    done = attempt(namespace, *argv, timeout=timeout)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return str(done.stdout)


def links(namespace: str) -> list[str]:
    """The names of the links in a namespace."""
    return re.findall(r"^(\S+?)(?:@|\s)", run(namespace, "ip", "-br", "link"), re.MULTILINE)


class Background:
    """A running command. Its output is read straight from the pipe, so waiting can have an end."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[str]) -> None:
        self.process = process
        self._errors = errors
        self._read = b""

    def line(self, within: float) -> str:
        """The next line of its output."""
        deadline = time.monotonic() + within
        while b"\n" not in self._read:
            assert self._more(deadline), f"it ended: {self.said()}"
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    def answer(self, within: float) -> dict[str, Any]:
        """The next line, as JSON."""
        answer = json.loads(self.line(within))
        assert isinstance(answer, dict)
        return answer

    def rest(self, within: float) -> str:
        """Everything it says until its end."""
        deadline = time.monotonic() + within
        while self._more(deadline):
            pass
        rest, self._read = self._read, b""
        return rest.decode()

    def _more(self, deadline: float) -> bool:
        assert self.process.stdout is not None
        wait = max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([self.process.stdout], [], [], wait)
        assert ready, f"nothing in time: {self.said()}"
        piece = os.read(self.process.stdout.fileno(), 1 << 16)
        self._read += piece
        return bool(piece)

    def said(self) -> str:
        """The command, and its standard error."""
        self._errors.seek(0)
        return f"{self.process.args!r}: {self._errors.read() or 'no errors shown'}"


@contextmanager
def background(namespace: str, *argv: str) -> Iterator[Background]:
    """A command inside a namespace, for the time of a `with` block."""
    with tempfile.TemporaryFile("w+") as errors:
        process = netns.run_in(
            namespace,
            subprocess.Popen,
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment({}),
        )
        try:
            yield Background(process, errors)
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
