"""Docker on a host (`tests.support.hosts`): an engine with folders and a socket of its own.

It makes no default bridge and no rules, so that what is there is Muslin's, and keeps its control
groups in one place, from where they are removed even after containers that were killed.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.hosts import Done, Host, stop
from tests.support.runtimes import needs
from tests.support.waiting import eventually

NEEDS_DOCKER = needs("dockerd", "docker", "busybox")

START_PATIENCE = 60.0
COMMAND_PATIENCE = 120.0

_CGROUPS = f"/muslin-test-{os.getpid()}"
_SETTINGS = {
    "bridge": "none",
    "iptables": False,
    "ip6tables": False,
    "cgroup-parent": _CGROUPS,
    "exec-opts": ["native.cgroupdriver=cgroupfs"],
    "shutdown-timeout": 1,
}


class Docker:
    """dockerd on a host.

    Args:
        host: where; `starting` starts it.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.log = host.machine.log.with_suffix(".dockerd")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the engine, and wait until it answers."""
        self._process = self.host.start(self.log, "dockerd")

        def answers() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()
            return self.attempt("version").returncode == 0

        eventually(answers, within=START_PATIENCE)

    def stop(self, *, kill: bool = False) -> None:
        """End the engine; with `kill` at once, so that its containers go on."""
        if self._process is not None:
            stop(self._process, kill=kill)
            self._process = None

    def attempt(self, *words: object) -> Done:
        """A command, whatever comes of it. The builder is the one that Debian's client has."""
        argv = ("env", "DOCKER_BUILDKIT=0", "docker", *words)
        return self.host.attempt(*argv, timeout=COMMAND_PATIENCE)

    def __call__(self, *words: object) -> str:
        """What a command prints; it has to succeed."""
        done = self.attempt(*words)
        assert done.returncode == 0, f"{self.host.name}: docker {words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def refuses(self, *words: object) -> str:
        """Why a command fails, which it has to."""
        done = self.attempt(*words)
        assert done.returncode != 0, f"docker {words}: {done.stdout}"
        return done.stderr

    def inspect(self, kind: str, name: str) -> Any:
        """What `docker KIND inspect NAME` shows."""
        (shown,) = json.loads(self(kind, "inspect", name))
        return shown


@contextmanager
def starting(host: Host, **settings: object) -> Iterator[Docker]:
    """Docker on a host, for the time of a `with` block.

    Args:
        host: where.
        settings: of daemon.json, with underscores for dashes.
    """
    said = {key.replace("_", "-"): value for key, value in settings.items()}
    host.write("/etc/docker/daemon.json", json.dumps(_SETTINGS | said))
    docker = Docker(host)
    try:
        docker.start()
        yield docker
        if names := docker("ps", "--all", "--quiet").split():
            docker("rm", "--force", *names)
    finally:
        docker.stop()


def remove_cgroups() -> None:
    """Remove the control groups of all engines of this run; nothing may run in them any more."""
    for root in Path("/sys/fs/cgroup").glob(f"*{_CGROUPS}"):
        for folder, _, _ in os.walk(root, topdown=False):
            with suppress(OSError):
                os.rmdir(folder)
