"""A lab's folder: what is needed to look after it and to remove it, also after a crash.

    /run/muslin/lab/
      .NAME.lock         held while a lab is changed
      NAME/
        lab.json         its parameters and cuts; written before anything is built
        node1/ ..        the nodes' state folders
        node1.log ..     what the daemons said
    /run/muslin/lab-logs/NAME/
        node1.log ..     the logs of a lab that did not come up

/run is empty after a reboot, and so are the namespaces. Process ids are not kept: one is stale the
moment its process ends. Whose process it is says its command line (see `node.lab.processes`).
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from node.errors import NodeError
from node.lab.topology import Topology, plan
from node.state import SOCKET
from overlay.errors import ConfigError

ROOT: Final = Path("/run/muslin")
FORMAT: Final = 1

LOCK_PATIENCE: Final = 10.0
"""How long one command waits for another that changes the same lab. Building takes about as long;
who waits longer should know."""
LOCK_POLL: Final = 0.05

Cut = tuple[str, str]
"""Two nodes, by name, sorted."""


_DAMAGED: Final = (
    ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, ConfigError
)  # fmt: skip
"""What a document that is not one makes of the calls that read it."""


@dataclass(frozen=True, slots=True)
class LabInfo:
    """A lab as its folder describes it."""

    topology: Topology
    folder: Path
    complete: bool = False
    """Whether it came up. False while it is being built, and for ever when that was cut short."""
    cluster: str = ""
    """The cluster's id, hex; empty until there is one."""
    cuts: tuple[Cut, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """MUSLIN_* variables of all daemons."""

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.topology.name

    def state(self, node: str) -> Path:
        """The state folder of a node."""
        return self.folder / node

    def socket(self, node: str) -> Path:
        """The control socket of a node."""
        return self.state(node) / SOCKET

    def log(self, node: str) -> Path:
        """What a node's daemon said."""
        return self.folder / f"{node}.log"

    def encode(self) -> str:
        """The text of lab.json."""
        topology = self.topology
        document = {
            "format": FORMAT,
            "name": topology.name,
            "nodes": len(topology.nodes),
            "pods": len(topology.nodes[0].pods),
            "underlay": str(topology.underlay),
            "mtu": topology.mtu,
            "cidr": topology.cidr,
            "complete": self.complete,
            "cluster": self.cluster,
            "cuts": [list(cut) for cut in self.cuts],
            "settings": dict(self.settings),
        }
        return json.dumps(document, indent=2) + "\n"

    @classmethod
    def decode(cls, text: str, folder: Path) -> Self:
        """Read the text of lab.json.

        Raises:
            NodeError: it is damaged, or of another version. Nothing else.
        """
        try:
            document = json.loads(text)
            if document["format"] != FORMAT:
                raise NodeError(f"{folder} was made by another version of Muslin")
            return cls(
                topology=plan(
                    document["name"],
                    document["nodes"],
                    document["pods"],
                    underlay=document["underlay"],
                    mtu=document["mtu"],
                    cidr=document["cidr"],
                ),
                folder=folder,
                complete=bool(document["complete"]),
                cluster=str(document["cluster"]),
                cuts=tuple((str(a), str(b)) for a, b in document["cuts"]),
                settings={str(key): str(value) for key, value in document["settings"].items()},
            )
        except _DAMAGED as error:
            fix = f"remove the lab with: muslin lab down --name {folder.name}"
            raise NodeError(f"{folder / 'lab.json'} is damaged", fix, "damaged") from error


class LabStore:
    """The folders of all labs.

    Args:
        root: where they are; another one in tests.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._labs = root / "lab"
        self._logs = root / "lab-logs"

    def folder(self, name: str) -> Path:
        """The folder of a lab, whether it exists or not."""
        return self._labs / name

    def exists(self, name: str) -> bool:
        """Whether there is a lab of that name, complete or not."""
        return self.folder(name).is_dir()

    def names(self) -> list[str]:
        """The labs that exist."""
        if not self._labs.is_dir():
            return []
        return sorted(entry.name for entry in self._labs.iterdir() if entry.is_dir())

    def create(self, topology: Topology, settings: Mapping[str, str]) -> LabInfo:
        """Make a lab's folder.

        Raises:
            NodeError: the file system does not allow it. Nothing else.
        """
        info = LabInfo(topology, self.folder(topology.name), settings=dict(settings))
        try:
            info.folder.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise NodeError.of(f"making {info.folder}", error) from error
        self.save(info)
        return info

    def load(self, name: str) -> LabInfo:
        """Read a lab's description.

        Raises:
            NodeError: there is no such lab, or its description is damaged. Nothing else.
        """
        file = self.folder(name) / "lab.json"
        try:
            return LabInfo.decode(file.read_text("utf-8"), file.parent)
        except FileNotFoundError as error:
            known = ", ".join(self.names())
            fix = f"there are: {known}" if known else "start one with: muslin lab up"
            raise NodeError(f"there is no lab {name!r}", fix, "no-lab") from error
        except OSError as error:
            raise NodeError.of(f"reading {file}", error) from error

    def save(self, info: LabInfo, **changes: object) -> LabInfo:
        """Write a lab's description, with some fields changed; returns the new one.

        Raises:
            NodeError: the file system does not allow it. Nothing else.
        """
        info = replace(info, **changes) if changes else info  # type: ignore[arg-type]
        file = info.folder / "lab.json"
        fresh = file.with_suffix(".new")
        try:
            fresh.write_text(info.encode(), "utf-8")
            fresh.rename(file)
        except OSError as error:
            raise NodeError.of(f"writing {file}", error) from error
        return info

    def keep_logs(self, name: str) -> Path:
        """Put the logs of a lab where they survive it, in place of older ones; returns where.

        Raises:
            NodeError: the file system does not allow it. Nothing else.
        """
        kept = self._logs / name
        try:
            shutil.rmtree(kept, ignore_errors=True)
            kept.mkdir(mode=0o700, parents=True)
            for log in self.folder(name).glob("*.log"):
                shutil.copy(log, kept / log.name)
        except OSError as error:
            raise NodeError.of(f"keeping logs in {kept}", error) from error
        return kept

    def remove(self, name: str) -> None:
        """Remove a lab's folder. None there is fine.

        Raises:
            NodeError: the file system does not allow it. Nothing else.
        """
        try:
            shutil.rmtree(self.folder(name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise NodeError.of(f"removing {self.folder(name)}", error) from error

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Be the only one that changes a lab, for the time of a `with` block.

        Raises:
            NodeError: another command changes it for too long. Nothing else.
        """
        path = self._labs / f".{name}.lock"
        lock = _acquire(path, name)
        try:
            yield
        finally:
            if not self.exists(name):
                path.unlink(missing_ok=True)
                self._tidy()
            os.close(lock)

    def _tidy(self) -> None:
        """Remove the folders of all labs when there is none left."""
        with suppress(OSError):  # not empty: somebody else still uses them
            self._labs.rmdir()
            self._root.rmdir()


def _acquire(path: Path, name: str) -> int:
    """An exclusive lock on a file that may be removed by whoever held it last."""
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        lock = _try_lock(path)
        if lock is not None:
            return lock
        if time.monotonic() > deadline:
            why = f"another command is changing lab {name}"
            raise NodeError(why, "wait until it is done", "busy")
        time.sleep(LOCK_POLL)


def _try_lock(path: Path) -> int | None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileNotFoundError, FileExistsError):
        return None  # the folder was removed while it was looked for
    except OSError as error:
        raise NodeError.of(f"locking {path}", error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A lock on a file that was removed in between locks nobody out.
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None
