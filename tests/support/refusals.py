"""What a refusal looks like: one clear line, the right exit code, and nothing has changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from node.kernel import netns
from node.kernel.pods import CLUSTER_DIGITS, OWN_PREFIX
from tests.support.machines import Done, Machine
from tests.support.processes import run

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
NO_ADMIN = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")


def in_a_mount_namespace(command: str) -> tuple[str, ...]:
    """Prefix that runs the rest after a mount that nobody else sees."""
    return ("unshare", "--mount", "sh", "-c", f'{command} && exec "$0" "$@"')


def line(text: str) -> re.Pattern[str]:
    """The whole of what is said, `...` standing for anything."""
    return re.compile(f"muslin: {re.escape(text).replace(re.escape('...'), '.*')}\n")


def refused(done: Done, says: str, code: int = 1) -> None:
    """One line on stderr, nothing on stdout, the right exit code."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert line(says).fullmatch(done.stderr), done.stderr


@contextmanager
def nothing_changes(*machines: Machine) -> Iterator[None]:
    """For the time of a `with` block; a daemon may take note of what it learns meanwhile."""
    before = [condition(machine) for machine in machines]
    yield
    assert [condition(machine) for machine in machines] == before


def condition(machine: Machine) -> object:
    """What a refusal must leave alone: network, namespaces, and files or what the daemon knows."""
    network = [
        sorted(run(machine.netns, "ip", *words.split()).splitlines())
        for words in ("-o addr", "-4 route show table all", "-6 route show table all")
    ]
    ours = (machine.info.name, f"{OWN_PREFIX}{machine.info.cluster[:CLUSTER_DIGITS]}")
    namespaces = [name for name in netns.names() if name.startswith(ours)]
    if machine.pid is None:
        return network, namespaces, machine.state.exists(), machine.files()
    pods = [(row["name"], row["address"]) for row in machine.get("pods")]
    nodes = [row["name"] for row in machine.get("nodes")]
    return network, namespaces, pods, nodes
