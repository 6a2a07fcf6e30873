"""Labs as people handle them: `muslin lab` from up to down, and interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

from node.kernel import netns
from tests.support.machines import MUSLIN
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import attempt, background
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

SOON = 30.0
"""Seconds, for what takes one or two, on a machine that may be busy with other things."""


def muslin(*words: str) -> Any:
    """A verb that needs no node, typed on the machine itself."""
    return attempt("/proc/self/ns/net", MUSLIN, *words, timeout=60)


def test_a_lab_from_up_to_down() -> None:
    name = f"t{os.getpid()}-cli"
    try:
        done = muslin("lab", "up", "--nodes", "2", "--pods", "1", "--name", name)
        assert done.returncode == 0, done.stderr
        assert (
            done.stderr.splitlines()[-1] == "muslin: every node sees every other node and every pod"
        )
        nodes, pods = done.stdout.split("\n\n")
        assert [line.split()[:2] for line in nodes.splitlines()[1:]] == [
            ["node1", "ready"],
            ["node2", "ready"],
        ]
        assert [line.split()[0] for line in pods.splitlines()[1:]] == ["node1-pod1", "node2-pod1"]
        there = pods.splitlines()[2].split()[2]

        status = muslin("lab", "status", "--name", name, "-o", "json")
        assert status.returncode == 0
        assert json.loads(status.stdout)["state"] == "up"
        seen = muslin("lab", "exec", "--name", name, "node1", "--", MUSLIN, "get", "pods")
        assert there in seen.stdout
        ping = ("lab", "exec", "--name", name, "node1-pod1", "--", "ping", "-c1", "-W5", there)
        assert muslin(*ping).returncode == 0
        again = muslin("lab", "up", "--name", name)
        assert again.returncode == 1
        assert again.stderr == (
            f"muslin: cannot bring up lab {name}: lab {name} exists already: "
            f"remove it with: muslin lab down --name {name}\n"
        )

        cut = muslin("lab", "cut", "node1", "node2", "--name", name)
        assert cut.stdout == "node1 and node2 no longer hear each other\n"
        assert muslin(*ping).returncode == 1
        assert re.search(r"^cuts +node1-node2$", muslin("lab", "status", "--name", name).stdout, 8)
        heal = muslin("lab", "heal", "--name", name)
        assert heal.stdout == "the underlay of all nodes is whole again\n"
        eventually(lambda: muslin(*ping).returncode == 0, within=SOON)

        down = muslin("lab", "down", "--name", name)
        assert (down.returncode, down.stdout) == (0, f"lab {name} is gone\n")
        gone = muslin("lab", "status", "--name", name)
        assert (gone.returncode, gone.stdout) == (1, "")
        assert f"there is no lab '{name}'" in gone.stderr
    finally:
        muslin("lab", "down", "--name", name)
    assert not [found for found in netns.names() if found.startswith(name)]


def test_an_interrupted_lab_leaves_nothing() -> None:
    name = f"t{os.getpid()}-int"
    try:
        words = (MUSLIN, "lab", "up", "--name", name)
        with background("/proc/self/ns/net", *words) as building:
            eventually(lambda: f"{name}-node3-pod2" in netns.names(), within=SOON)
            building.process.send_signal(signal.SIGINT)
            assert building.process.wait(SOON) == 130
            assert "Traceback" not in building.said()
        assert not [found for found in netns.names() if found.startswith(name)]
    finally:
        muslin("lab", "down", "--name", name)
