"""What one engine costs as the cluster grows: memory and time per member, and at rest.

One node, as many other members as asked for, each with a record that is really signed, a deed for
its block, and some pods. What gossip would bring is given to the engine as it comes from the wire:

    learn     items that are new: decoded, verified, merged, applied; routes follow
    again     newer records of the same members: the same, without a change of routes
    memory    what is held for a member: its record and its deed, understood, two routes, and a
              place on the rings; with `--memory` also which modules made it
    idle      CPU per second of virtual time, in which nothing happens
    snapshot  everything `muslin get` can show

Times without signatures are what a world of many engines pays for each of them: there one of them
verifies for all (`overlay.sim.reader`). Who probes whom and who tells whom is not measured here but
in whole simulated clusters; the node has no sessions.
"""

from __future__ import annotations

import gc
import json
import random
import time
import tracemalloc
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from bench.counts import counts
from bench.report import Table, machine, say
from node.errors import NodeError
from overlay.catalog.keys import deed_item
from overlay.catalog.reader import Reader
from overlay.catalog.records import PodEntry, sign_record
from overlay.config import Limits, Settings
from overlay.engine import Engine
from overlay.ipam.deeds import Chain, sign_deed
from overlay.keys import SigningKey, StaticKey
from overlay.parts import Parts
from overlay.sim.reader import SharedReader
from overlay.state import NodeState
from overlay.types import DEFAULT_PORT, BlockIndex, Endpoint
from overlay.wire.certificate import Identity, issue_certificate
from overlay.wire.cluster import Cluster, found_cluster
from overlay.wire.control import decode_untrusted, encode
from overlay.wire.items import Item
from overlay.wire.messages import Delta

DESCRIPTION: Final = "What one engine costs with many members: memory, time per record, at rest."

MEMBERS: Final = "10,100,1000,3000"
PODS: Final = 3
"""Of each member."""

EPOCH: Final = 1_767_225_600.0
YEAR: Final = 365 * 86_400
IDLE: Final = 30.0
"""Virtual seconds at rest."""
SNAPSHOTS: Final = 5
BATCH: Final = 16
"""Items in one message, as gossip pushes them."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What was measured with one number of members."""

    members: int
    learn: float
    """Microseconds per item that is new, signatures included."""
    learn_shared: float
    """The same for a node whose reader has seen all items before."""
    again_shared: float
    """Microseconds per newer record, for such a node."""
    memory: float
    """Bytes per member."""
    idle: float
    """Milliseconds of CPU per second in which nothing happens."""
    snapshot: float
    """Milliseconds per snapshot."""


class Founded:
    """A cluster, and what its members say. Everything is made from one seed.

    Args:
        members: how many there are beside the node that is measured, which is the founder.
    """

    def __init__(self, members: int) -> None:
        self._entropy = random.Random("members").randbytes
        self._authority = SigningKey(self._entropy(32))
        founder = self._keys()
        self.cluster: Cluster = found_cluster(
            self._authority,
            genesis=founder[0].public,
            cidr=IPv4Network("10.0.0.0/10"),
            cidr6=IPv6Network("fd4d:7573:6c69::/48"),
            block_prefix=24,
            created=int(EPOCH),
            entropy=self._entropy,
        )
        self.founder = self._certified(founder, "founder", 1)
        self._members = [
            self._certified(self._keys(), f"node{number}", number + 2) for number in range(members)
        ]

    def _keys(self) -> tuple[SigningKey, StaticKey]:
        return SigningKey(self._entropy(32)), StaticKey(self._entropy(32))

    def _certified(self, keys: tuple[SigningKey, StaticKey], name: str, serial: int) -> Identity:
        signing, static = keys
        certificate = issue_certificate(
            self._authority,
            node=signing.public,
            static=static.public,
            name=name,
            cluster=self.cluster.id,
            serial=serial,
            not_before=int(EPOCH),
            not_after=int(EPOCH) + YEAR,
        )
        return Identity(signing, static, certificate)

    def records(self, members: int, version: int) -> list[Item]:
        """What the first `members` say of themselves."""
        return [
            sign_record(
                member,
                version=1 << 32 | version,
                endpoints=[Endpoint(f"198.18.{at >> 8}.{at & 255}", DEFAULT_PORT)],
                blocks_in_use=[BlockIndex(at + 1)],
                pods=[
                    PodEntry(f"pod-{pod}", BlockIndex(at + 1), 2 + pod, 0) for pod in range(PODS)
                ],
                software="measured",
            )
            for at, member in enumerate(self._members[:members])
        ]

    def deeds(self, members: int) -> list[Item]:
        """By which they got their blocks."""
        return [
            deed_item(
                sign_deed(
                    self.founder.signing,
                    Chain(BlockIndex(at + 1), self.founder.node),
                    member.node,
                    cluster=self.cluster.id,
                )
            )
            for at, member in enumerate(self._members[:members])
        ]

    def engine(self, reader: Reader) -> Engine:
        """The founder's engine, just started."""
        rng = random.Random("engine")
        engine = Engine(
            identity=self.founder,
            cluster=self.cluster,
            psk=bytes(32),
            state=NodeState(),
            settings=Settings(),
            entropy=rng.randbytes,
            rng=rng,
            epoch=EPOCH + 1,
            endpoints=(Endpoint("192.0.2.1", DEFAULT_PORT),),
            deliver=lambda _packet: True,
            transmit=lambda _endpoint, _datagrams, _size: True,
            authorities=(self._authority,),
            reader=reader,
        )
        engine.start(0.0)
        return engine


def packed(items: Sequence[Item]) -> list[bytes]:
    """The messages in which they come."""
    return [encode(Delta(tuple(items[at : at + BATCH]))) for at in range(0, len(items), BATCH)]


def learn(parts: Parts, messages: Sequence[bytes]) -> None:
    """What an engine does with such messages, but for telling others.

    Raises:
        NodeError: an item was not taken over. Nothing else.
    """
    for message in messages:
        delta = decode_untrusted(message)
        assert isinstance(delta, Delta)
        items = [parts.reader.keep(item) for item in delta.items]
        learned = parts.store.merge(items)
        parts.knowledge.take_own(learned, 1.0)
        if len(learned) != len(items):
            raise NodeError("an item was refused: nothing was measured")


# -- measuring -------------------------------------------------------------------------------------


def measure(founded: Founded, members: int) -> Cost:
    """All figures for one number of members."""
    items = [*founded.records(members, 1), *founded.deeds(members)]
    first, second = packed(items), packed(founded.records(members, 2))
    own = founded.engine(Reader(founded.cluster, Limits()))
    learn_own = _seconds(lambda: learn(own.parts, first))
    shared = SharedReader(founded.cluster, Limits())
    learn(founded.engine(shared).parts, [*first, *second])
    engine = founded.engine(shared)
    learn_shared = _seconds(lambda: learn(engine.parts, first))
    again = _seconds(lambda: learn(engine.parts, second))
    return Cost(
        members=members,
        learn=learn_own / len(items) * 1e6,
        learn_shared=learn_shared / len(items) * 1e6,
        again_shared=again / members * 1e6,
        memory=sum(memory_by_module(founded, first).values()) / members,
        idle=_idle(engine) * 1e3,
        snapshot=_seconds(lambda: [engine.snapshot(1.0) for _ in range(SNAPSHOTS)])
        / SNAPSHOTS
        * 1e3,
    )


def _seconds(work: Callable[[], object]) -> float:
    gc.collect()
    started = time.process_time()
    work()
    return time.process_time() - started


def memory_by_module(founded: Founded, messages: Sequence[bytes]) -> dict[str, int]:
    """Bytes that an engine by itself holds after these messages and did not before.

    Returns:
        Path of the module that made them -> bytes, most first. What one made another may hold:
        `overlay/wire/packing.py` makes the bytes and texts of all items.
    """
    engine = founded.engine(Reader(founded.cluster, Limits()))
    parts = engine.parts
    gc.collect()
    tracemalloc.start()
    try:
        learn(parts, messages)
        for record in parts.catalog.nodes.values():
            if record.node != parts.local:
                parts.gossip.add_member(record.node, record.boot, 1.0)
        parts.store.unstored = set()  # as after the disk has them
        gc.collect()
        found = tracemalloc.take_snapshot().statistics("filename")
    finally:
        tracemalloc.stop()
    root = Path(__file__).parent.parent
    held: dict[str, int] = {}
    for one in found:
        path = Path(one.traceback[0].filename)
        name = str(path.relative_to(root)) if path.is_relative_to(root) else "other"
        held[name] = held.get(name, 0) + one.size
    return dict(sorted(held.items(), key=lambda item: -item[1]))


def _idle(engine: Engine) -> float:
    """CPU seconds per virtual second, deadlines followed as a driver does."""
    now, end = 1.0, 1.0 + IDLE

    def rest() -> None:
        at: float = now
        while (due := engine.next_deadline()) is not None and due <= end:
            at = max(at, due)
            engine.on_deadline(at)

    return _seconds(rest) / IDLE


# -- the command -----------------------------------------------------------------------------------


def add_options(parser: ArgumentParser) -> None:
    """The options of `scripts/bench members`."""
    parser.add_argument(
        "--members", default=MEMBERS, metavar="COUNTS", help=f"of the cluster (default {MEMBERS})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--memory", action="store_true", help="show which modules made it, for the last number"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")


def members(options: Namespace) -> None:
    """Do what the options say.

    Raises:
        NodeError: an option is wrong.
    """
    sizes = counts(options.members, "--members")
    founded = Founded(max(sizes))
    costs = []
    for count in sizes:
        costs.append(measure(founded, count))
        say(f"{count} members are measured")
    on = machine()
    if options.json is not None:
        found = {"machine": on, "members": [asdict(cost) for cost in costs]}
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    table = tabulate(costs)
    print(f"Python {on['python']}, {on['processor']}\n")
    print(table.markdown() if options.markdown else table.text())
    if options.memory:
        table = tabulate_memory(founded, sizes[-1])
        print("\n" + (table.markdown() if options.markdown else table.text()))


def tabulate(costs: Sequence[Cost]) -> Table:
    """A row per figure, a column per number of members."""
    figures: tuple[tuple[str, Callable[[Cost], str]], ...] = (
        ("new item, us", lambda cost: f"{cost.learn:.0f}"),
        ("new item, signatures aside, us", lambda cost: f"{cost.learn_shared:.1f}"),
        ("newer record, signatures aside, us", lambda cost: f"{cost.again_shared:.1f}"),
        ("memory per member, bytes", lambda cost: f"{cost.memory:,.0f}"),
        ("at rest, ms of CPU per s", lambda cost: f"{cost.idle:.2f}"),
        ("snapshot, ms", lambda cost: f"{cost.snapshot:.1f}"),
    )
    head = ["", *(f"{cost.members:,} members" for cost in costs)]
    rows = [[title, *map(show, costs)] for title, show in figures]
    return Table("One engine and the members it knows", head, rows)


def tabulate_memory(founded: Founded, members: int) -> Table:
    """A row per module that made at least a byte per member."""
    items = [*founded.records(members, 1), *founded.deeds(members)]
    held = memory_by_module(founded, packed(items))
    rows = [[name, f"{size / members:,.0f}"] for name, size in held.items() if size >= members]
    return Table(f"Memory of {members:,} members, by module", ["", "bytes per member"], rows)
