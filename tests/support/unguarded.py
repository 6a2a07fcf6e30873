"""A real daemon whose packet filter asks nothing of networks: so that tests of the filter can fail.

    python tests/support/unguarded.py -m node --state FOLDER up

Pods are held to their addresses as ever; what comes from elsewhere may have any.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.cli.app import main
from node.kernel import guard
from tests.support.machines import Machine
from tests.support.processes import background


@contextmanager
def unguarded(machine: Machine) -> Iterator[None]:
    """In the place of a machine's daemon, for the time of a `with` block."""
    machine.stop()
    words = [sys.executable, str(Path(__file__)), "-m", "node", "--state", str(machine.state), "up"]
    try:
        with background(machine.netns, *words):
            yield
    finally:
        machine.up()


if __name__ == "__main__":
    del sys.argv[1:3]
    guard._ours = lambda snapshot: ""
    guard._transit = lambda snapshot, tun: ""
    sys.exit(main())
