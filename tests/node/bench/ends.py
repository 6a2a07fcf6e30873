"""A far end as the daemon starts it, on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from node.bench.far import Place, Task
from node.bench.near import Offer
from node.lab.processes import environment

HERE = "127.0.0.1"
TOKEN, OTHER_TOKEN = b"a" * 16, b"b" * 16

TASK = Task(
    overlay=Place(HERE, "", HERE, TOKEN.hex()),
    underlay=Place("127.0.0.2", "", HERE, OTHER_TOKEN.hex()),
    seconds=30.0,
    daemon=os.getpid(),
)


@dataclass
class FarEnd:
    """A running far end."""

    process: subprocess.Popen[bytes]
    ports: dict[str, int]

    def offer(self, **changes: object) -> Offer:
        """What the near end needs."""
        offer = Offer(
            node="node2",
            address=HERE,
            port=self.ports["port"],
            token=TOKEN,
            underlay="127.0.0.2",
            underlay_port=self.ports["underlay_port"],
            underlay_token=OTHER_TOKEN,
            daemon=os.getpid(),
        )
        return replace(offer, **changes)

    def ends(self) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(30)


@contextmanager
def far_end(task: Task = TASK) -> Iterator[FarEnd]:
    """A far end for the time of a `with` block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "node.bench.far"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment({}),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(task.encode())
        process.stdin.flush()
        yield FarEnd(process, json.loads(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
