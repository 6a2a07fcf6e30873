"""Kill a node while it writes its state, look at what is on the disk, and start it again.

    scripts/torture                         500 kills at random moments, then 10 at each failpoint
    scripts/torture --kills 40 --each 1     shorter
    scripts/torture --folder /mnt/x         on another file system

The node is a process with the daemon's engine, driver, writer and journal. It adds and removes
pods without pause. Before each it says on a pipe what it is going to do; when the driver has stored
that, it says what it has done, which is when others would learn of it. After a kill the state on
the disk must be what was announced last, or that and the one thing that was going on; never less,
never half of it, never unreadable. The next process starts from it.

What a kill cannot show is a loss of power: `tests/node/test_transactions.py` cuts the file at every
byte for that.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from itertools import count
from pathlib import Path

import node.journal
from node.driver import Driver
from node.founding import found_node
from node.identity import load_node, write_node
from node.io.memory import MemoryNetwork, MemoryTun, MemoryUdp
from node.journal import POINTS, Journal, SystemCalls, read_entries
from node.state import STATE, StateFolder
from node.writer import Stored, Writer
from overlay.config import Settings, Timing
from overlay.engine import Engine
from overlay.errors import OverlayError
from overlay.state import Change, NodeState
from overlay.types import Endpoint

HERE = Endpoint("192.0.2.1", 6875)
PODS = 12
"""Names that are added and removed: the state stays small and is rewritten often."""
SLACK = 4096
"""Bytes by which a file may grow until it is rewritten: often enough to be hit."""
LONGEST_LIFE = 0.03
"""Seconds until a process is killed: some dozens of transactions."""
PATIENCE = 20.0
HALVES = ("append-half", "rewrite-half")
"""More failpoints: in the middle of what is written."""

Say = Callable[[str], None]


# -- the process that is killed --------------------------------------------------------------------


class Deadly(SystemCalls):
    """Ends the process when a point is reached the n-th time."""

    def __init__(self, point: str, times: int) -> None:
        self._point = point
        self._left = times
        self._in = ""

    def reach(self, point: str) -> None:
        """Die here, if this is the point."""
        self._in = point
        if point == self._point:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def write(self, handle: int, data: memoryview) -> int:
        """Write; the half of it alone if that is the point."""
        half = {"append": HALVES[0], "rewrite-opened": HALVES[1]}.get(self._in, "")
        if half != self._point:
            return super().write(handle, data)
        written = super().write(handle, data[: len(data) // 2])
        self.reach(half)
        return written


class Listener:
    """Stores what the engine wants stored; nothing else matters here."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def store(self, changes: tuple[Change, ...], then: Stored) -> None:
        """As the daemon does."""
        self._writer.write(changes, then)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


async def live(folder: StateFolder, calls: SystemCalls, seed: str, say: Say) -> None:
    """Be a node that adds and removes pods until it is killed."""
    rng = random.Random(seed)
    stored = load_node(folder)
    journal = Journal.open(folder.path / STATE.name, calls)
    tun, udp = MemoryTun(), MemoryUdp(MemoryNetwork(), HERE)
    engine = Engine(
        identity=stored.identity,
        cluster=stored.cluster,
        psk=stored.psk,
        state=stored.state,
        settings=Settings(timing=Timing(quarantine=0.0)),  # it deletes more pods than rest at once
        entropy=os.urandom,
        rng=rng,
        epoch=time.time() - time.monotonic(),
        endpoints=(HERE,),
        deliver=tun.write,
        transmit=udp.send,
        authorities=stored.authorities,
    )
    writer = Writer(journal)
    driver = Driver(
        engine=engine, tun=tun, udp=udp, listener=Listener(writer), clock=time.monotonic
    )
    say("want start")
    if not driver.start():
        raise RuntimeError(engine.not_stored)
    writer.start()
    say(f"boot {engine.parts.record.versions.boot}")
    pods = {pod.name for pod in stored.state.pods}
    while True:
        name = f"pod{rng.randrange(PODS)}"
        say(f"want {name}")
        if name in pods:
            pod, effects = engine.remove_pod(name, time.monotonic())
        else:
            pod, effects = engine.add_pod(name, f"/ns/{name}", None, time.monotonic())
        if not await driver.stored(effects):
            raise RuntimeError(engine.not_stored)
        pods ^= {name}
        say(f"has {name} {pod.address}" if name in pods else f"lost {name}")


def spawn(folder: StateFolder, calls: SystemCalls, seed: str) -> tuple[int, int]:
    """Start a node in a process of its own; its id, and the pipe on which it says what it does."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child:
        os.close(theirs)
        return child, ours
    try:
        os.close(ours)
        node.journal.SLACK = SLACK
        asyncio.run(live(folder, calls, seed, lambda line: _say(theirs, line)))
    except (OverlayError, OSError, RuntimeError) as error:
        _say(theirs, f"failed {error}")
    finally:
        os._exit(1)


def _say(pipe: int, line: str) -> None:
    os.write(pipe, line.encode() + b"\n")


# -- whoever looks at what is left -----------------------------------------------------------------


@dataclass
class Known:
    """What was announced, and what was going on.

    Attributes:
        boot: the last announced boot counter.
        pods: names and addresses.
        wanted: what it was about to do: `start`, or a pod to be added or removed.
    """

    boot: int = 0
    pods: dict[str, str] = field(default_factory=dict)
    wanted: str = ""

    def hear(self, line: str) -> None:
        """Take note of what a process said."""
        match line.split(" "):
            case ["want", what]:
                self.wanted = what
            case ["boot", boot]:
                self.boot, self.wanted = int(boot), ""
            case ["has", name, address]:
                self.pods[name], self.wanted = address, ""
            case ["lost", name]:
                del self.pods[name]
                self.wanted = ""
            case _:
                raise AssertionError(f"the process said: {line}")

    def check(self, state: NodeState, address_of: Callable[[object], str]) -> str:
        """Compare with the disk, and take over what was going on if it is there.

        Returns:
            `before` or `after`: whether what was going on is on the disk.
        """
        pods = {pod.name: address_of(pod) for pod in state.pods}
        assert len(set(pods.values())) == len(pods), f"an address twice: {pods}"
        boots = {self.boot, self.boot + (self.wanted == "start")}
        assert state.boot in boots, f"boot {state.boot}, announced {self.boot}"
        differ = {name for name in pods | self.pods if pods.get(name) != self.pods.get(name)}
        assert differ <= {self.wanted}, f"{differ} differ, and {self.wanted!r} was going on"
        happened = "after" if differ or state.boot != self.boot else "before"
        self.pods, self.boot, self.wanted = pods, state.boot, ""
        return happened


class Torture:
    """One folder with a node, killed again and again.

    Args:
        path: an empty folder.
        seed: of the moments and of what the node does.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self.folder = StateFolder(path)
        self._rng = random.Random(seed)
        self._numbers = count()
        self._seed = seed
        made = found_node(
            "node1",
            cidr=ip_network("10.244.0.0/16"),
            cidr6=None,
            block_prefix=24,
            entropy=os.urandom,
            wall=time.time(),
        )
        write_node(self.folder, made)
        self._known = Known()
        self.seen = {"before": 0, "after": 0, "announced": 0, "torn": 0, "rewritten": 0}
        self._inode = 0

    def kill(self, calls: SystemCalls, life: float | None) -> None:
        """Start the node, kill it after `life` seconds unless it ends itself, and look.

        Raises:
            AssertionError: what is on the disk is not what it must be.
        """
        child, pipe = spawn(self.folder, calls, f"{self._seed}/{next(self._numbers)}")
        try:
            said = self._listen(child, pipe, life)
        finally:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            os.close(pipe)
        *lines, rest = said.decode().split("\n")
        assert not rest, f"half a line: {rest!r}"
        for line in lines:
            self._known.hear(line)
        assert os.WIFSIGNALED(status), f"it ended by itself after {lines[-1:]}"
        self.seen["announced"] += sum(not line.startswith("want") for line in lines)
        self._look()

    def _listen(self, child: int, pipe: int, life: float | None) -> bytes:
        """All that a process says until its end, which comes `life` seconds after the first."""
        said, until = b"", time.monotonic() + PATIENCE
        while True:
            ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                assert said, "it did not start in time"
                assert life is not None, "it did not reach the point"
                os.kill(child, signal.SIGKILL)
                until = time.monotonic() + PATIENCE
                continue
            part = os.read(pipe, 1 << 16)
            if not part:
                return said
            if not said and life is not None:
                until = time.monotonic() + life
            said += part

    def _look(self) -> None:
        path = self.folder.path / STATE.name
        entries = read_entries(path)
        state = NodeState.from_entries(entries)
        happened = self._known.check(state, lambda pod: f"10.244.{pod.block}.{pod.host}")
        self.seen[happened] += 1
        journal = Journal.open(path, report=lambda _: self._count("torn"))
        journal.close()
        assert journal.entries == entries
        self.seen["rewritten"] += path.stat().st_ino != self._inode
        self._inode = path.stat().st_ino
        assert not list(self.folder.path.glob("*.damaged-*"))

    def _count(self, what: str) -> None:
        self.seen[what] += 1


def main() -> int:
    """Torture a node as the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="torture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=500, help="at random moments (%(default)s)")
    parser.add_argument("--each", type=int, default=10, help="at each failpoint (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (%(default)s)")
    parser.add_argument("--folder", help="make the state folder in this one (a temporary one)")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        torture = Torture(Path(folder), options.seed)
        began = time.monotonic()
        try:
            for _ in range(options.kills):
                torture.kill(SystemCalls(), rng.random() * LONGEST_LIFE)
            for point in (*POINTS, *HALVES):
                for _ in range(options.each):
                    torture.kill(Deadly(point, rng.randrange(1, 4)), None)
        except (AssertionError, OverlayError) as error:
            print(f"torture: {error} (seed {options.seed})", file=sys.stderr)
            return 1
    points = options.each * len((*POINTS, *HALVES))
    seen = ", ".join(f"{number} {what}" for what, number in torture.seen.items())
    took = time.monotonic() - began
    print(f"{options.kills} kills at random and {points} at failpoints in {took:.0f} s: {seen}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
