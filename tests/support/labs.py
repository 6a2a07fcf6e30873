"""Labs for tests: made under a name of their own, and gone afterwards whatever happens."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from node.errors import NodeError
from node.kernel import netns
from node.lab import verbs
from node.lab.build import lab_down, lab_up
from node.lab.readiness import Row, ask
from node.lab.store import LabInfo, LabStore

ROOT = Path("/run")
OWN_ROOT = ROOT / f"muslin-test-{os.getpid()}"
"""Where this run keeps its labs. Not below pytest's folders: a socket's path is 108 bytes."""

_RUN = re.compile(r"muslin-test-([0-9]+)")
_PREFIX = f"t{os.getpid()}-"
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Place:
    """A node or a pod: where commands run, and what others reach it by."""

    name: str
    node: str
    netns: str
    address: str
    address6: str

    def at(self, family: int) -> str:
        """Its pod-network address of IP version 4 or 6."""
        return self.address if family == 4 else self.address6


class Lab:
    """A lab that is up.

    Args:
        info: what it is.
        store: where it is kept; the functions of `node.lab.verbs` want it.
    """

    def __init__(self, info: LabInfo, store: LabStore) -> None:
        self.info = info
        self.store = store
        first = info.topology.nodes[0].name
        inside = {place.name: place.netns for place in (*info.topology.nodes, *info.topology.pods)}
        self.nodes = tuple(
            Place(row["name"], row["name"], inside[row["name"]], row["address"], row["address6"])
            for row in self.get(first, "nodes")
        )
        self.pods = tuple(
            Place(row["name"], row["node"], inside[row["name"]], row["address"], row["address6"])
            for row in self.get(first, "pods")
        )

    @property
    def name(self) -> str:
        """For the functions of `node.lab`."""
        return self.info.name

    @property
    def underlay(self) -> str:
        """The namespace of the bridge; the port to a node has the node's name."""
        return self.info.topology.bridge_netns

    def __getitem__(self, name: str) -> Place:
        return next(place for place in (*self.nodes, *self.pods) if place.name == name)

    def underlay_address(self, node: str) -> str:
        """What a node's daemon is reached at."""
        return str(self.info.topology.node(node).address.ip)

    # -- what daemons say --------------------------------------------------------------------------

    def ask(self, node: str, method: str, **params: object) -> Any:
        """The answer of a node's daemon."""
        return ask(self.info, node, method, **params)

    def get(self, node: str, kind: str) -> list[Row]:
        """What `muslin get KIND -o json` lists on a node."""
        return list(self.ask(node, "get", kind=kind))

    def session(self, node: str, peer: str) -> Row:
        """A node's session with a peer."""
        rows = [row for row in self.get(node, "sessions") if row["node"] == peer]
        assert rows, f"{node} has no session with {peer}"
        return rows[0]

    def drops(self, node: str) -> Counter[str]:
        """What a node has lost so far, by reason."""
        return Counter(self.ask(node, "status")["ledger"]["drops"])

    # -- what is done to them ----------------------------------------------------------------------

    def cut(self, a: str, b: str) -> None:
        """Let two nodes no longer hear each other."""
        verbs.lab_cut(self.name, a, b, store=self.store)

    def heal(self) -> None:
        """Undo all cuts."""
        verbs.lab_heal(self.name, store=self.store)

    def logs(self) -> dict[str, str]:
        """What the daemons said, by node."""
        return logs_in(self.info.folder)


class LabMaker:
    """Makes labs, and takes all of them down with its `with` block.

    Args:
        root: below it labs are kept.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._store = LabStore(root)
        self._stack = ExitStack()
        self.labs: list[Lab] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def __call__(
        self,
        nodes: int = 2,
        pods: int = 1,
        *,
        wired: Callable[[str], object] = lambda name: None,
        **options: Any,
    ) -> Lab:
        """A lab that is up.

        Args:
            nodes: how many.
            pods: how many per node.
            wired: told the lab's name when its namespaces are there and nothing runs yet.
            options: those of `lab_up`.
        """
        name = f"{_PREFIX}{next(_NUMBERS)}"
        self._stack.callback(lab_down, name, store=self._store)
        steps = itertools.count()

        def progress(_: str) -> None:
            if next(steps) == 0:
                wired(name)

        try:
            info = lab_up(name, nodes, pods, store=self._store, progress=progress, **options)
        except NodeError as error:
            logs = logs_in(self._root / "lab-logs" / name)
            pytest.fail("\n".join([str(error), *logs.values()]), pytrace=False)
        self.labs.append(Lab(info, self._store))
        return self.labs[-1]


def logs_in(folder: Path) -> dict[str, str]:
    """What daemons said, by node."""
    return {file.stem: file.read_text("utf-8", "replace") for file in sorted(folder.glob("*.log"))}


def remove_leftovers() -> list[str]:
    """Remove what this run has left, and what runs that were killed have left; says what."""
    removed = []
    for folder in ROOT.iterdir():
        found = _RUN.fullmatch(folder.name)
        if found and (folder == OWN_ROOT or not Path("/proc", found[1]).exists()):
            store = LabStore(folder)
            for name in store.names():
                lab_down(name, store=store)
                removed.append(name)
            shutil.rmtree(folder, ignore_errors=True)  # another run may be at it as well
            for name in namespaces_of(int(found[1])):
                netns.delete(name)
                removed.append(name)
    return removed


def namespaces_of(run: int) -> list[str]:
    """The namespaces of a run's labs, by its process id."""
    return [name for name in netns.names() if name.startswith(f"t{run}-")]
