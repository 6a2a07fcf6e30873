"""A real daemon that lies: `muslin up` with one thing more, a file that it reads orders from.

    python tests/support/mallory.py ORDERS -m node --state FOLDER up

Each line of ORDERS is the name of one of `ORDERS_TAKEN`, or of a lie of `tests.sim.test_insider`:
the very functions that lie in the simulator. When it has been told, its name goes to the standard
output. Beyond that it is the daemon, with valid keys, an honest record and all its privileges
dropped; the words behind ORDERS are those by which labs find their daemons.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Self

from bench.revocation import deafen
from node import privileges
from node.cli.app import main
from node.lab.store import LabInfo
from node.tasks import spawn
from overlay.catalog.keys import deed_item
from overlay.catalog.records import sign_record
from overlay.ipam.deeds import sign_deed
from overlay.types import NodeId
from overlay.wire.claims import Claim, ClaimState
from overlay.wire.items import Item
from overlay.wire.messages import Claims
from tests.sim import test_insider
from tests.sim.insider import BYSTANDER, TOLD, VICTIM, Insider
from tests.support.processes import Background, background

if TYPE_CHECKING:
    from node.daemon import Daemon

LIAR: Final = "node4"
"""What the lying node is called in a lab."""

POLL: Final = 0.02
PATIENCE: Final = 20.0


class RealInsider(Insider):
    """What lies need to know, taken from a running daemon instead of a world.

    Args:
        daemon: of the node that lies.
    """

    def __init__(self, daemon: Daemon) -> None:
        engine = daemon.engine
        self.machine = SimpleNamespace(
            engine=engine,
            membership=SimpleNamespace(identity=engine.identity),
            perform=daemon.perform,
            name=LIAR,
        )
        self.machine.now = daemon.now()
        self.world = _Others(self)
        names = {VICTIM: f"{VICTIM}-pod1", TOLD: f"{TOLD}-pod1", "mallory": f"{LIAR}-pod1"}
        catalog, plan = engine.parts.catalog, engine.parts.plan
        placed = {pod.name: plan.address4(pod.block, pod.host) for _, pod in catalog.pods()}
        self.pods = {name: placed[pod] for name, pod in names.items() if pod in placed}

    def node(self, name: str) -> NodeId:
        """The id of a node; the liar's under either name."""
        record = self.machine.engine.parts.catalog.by_name(LIAR if name == "mallory" else name)
        assert record is not None
        return record.node


class _Others:
    """Stands for a world: the cluster, and of each node its own addresses."""

    def __init__(self, insider: RealInsider) -> None:
        self._insider = insider
        self.cluster = insider.machine.engine.cluster

    def __getitem__(self, name: str) -> Any:
        parts = self._insider.machine.engine.parts
        block = parts.catalog.nodes[self._insider.node(name)].blocks_in_use[0]
        holdings = SimpleNamespace(
            address=parts.plan.address4(block, 1), address6=parts.plan.address6(block, 1)
        )
        return SimpleNamespace(engine=SimpleNamespace(parts=SimpleNamespace(holdings=holdings)))


# -- orders that are no lies of the simulator ------------------------------------------------------


def victims_death(insider: RealInsider) -> None:
    """The victim is dead, as it is now."""
    claim = insider.machine.engine.parts.gossip._liveness.hearsay.members.claim
    said = claim(insider.node(VICTIM))
    death = Claim(said.node, said.boot, said.incarnation, ClaimState.DEAD, True, said.proof)
    insider.say(Claims((death,)), TOLD, BYSTANDER)


def victims_block_in_its_record(insider: RealInsider) -> None:
    """Its own record, properly signed, and the victim's block in it."""
    parts = insider.machine.engine.parts
    record = parts.catalog.nodes[parts.local]
    stolen = parts.catalog.nodes[insider.node(VICTIM)].blocks_in_use
    insider.tell(
        sign_record(
            insider.machine.engine.identity,
            version=record.version + 1,
            endpoints=record.endpoints,
            blocks_in_use=(*record.blocks_in_use, *stolen),
            pods=record.pods,
            removals=record.removals,
        ),
        to=(TOLD, BYSTANDER),
    )


_FIRST: Final[list[Item]] = []
"""The victim's record when this daemon was asked to remember it."""


def remember_the_victims_record(insider: RealInsider) -> None:
    """Keep it for later."""
    parts = insider.machine.engine.parts
    item = parts.store.get(b"n" + insider.node(VICTIM))
    assert item is not None
    _FIRST.append(item)


def the_victims_old_record(insider: RealInsider) -> None:
    """What the victim said once, and has replaced since."""
    insider.tell(_FIRST[0], to=(TOLD, BYSTANDER))


def two_deeds(insider: RealInsider) -> None:
    """Its own block, signed over to two takers."""
    engine = insider.machine.engine
    (block, *_) = engine.parts.holdings.owned()
    chain = engine.parts.catalog.titles.chain(block)
    for taker, told in ((TOLD, BYSTANDER), (BYSTANDER, TOLD)):
        forked = sign_deed(
            engine.identity.signing, chain, insider.node(taker), cluster=engine.cluster.id
        )
        insider.tell(deed_item(replace(forked)), to=(told,))


def be_deaf(insider: RealInsider) -> None:
    """Take no notice of its own removal."""
    deafen(insider.machine)


ORDERS_TAKEN: Final[dict[str, Callable[[RealInsider], None]]] = {
    order.__name__: order
    for order in (
        victims_death,
        victims_block_in_its_record,
        remember_the_victims_record,
        the_victims_old_record,
        two_deeds,
        be_deaf,
    )
}


# -- the process -----------------------------------------------------------------------------------


async def take_orders(daemon: Daemon, orders: Path) -> None:
    """Do what is written to the file, line by line, as it is written."""
    done = 0
    while True:
        for name in _read(orders)[done:]:
            done += 1
            order = ORDERS_TAKEN.get(name) or getattr(test_insider, name)
            order(RealInsider(daemon))
            print(name, flush=True)
        await asyncio.sleep(POLL)


def _read(orders: Path) -> list[str]:
    """Whole lines: what stands behind the last line end is still being written."""
    return orders.read_text().split("\n")[:-1]


def _lie(orders: Path) -> None:
    """Make every daemon that this process runs take orders."""
    from node import daemon as module

    class Mallory(module.Daemon):
        """The daemon, and a task beside it."""

        def _announce_ready(self) -> None:
            spawn(take_orders(self, orders), name="mallory", on_crash=self._on_crash)
            super()._announce_ready()

    module.Daemon = Mallory


def run(orders: Path) -> int:
    """`muslin up`, with orders."""
    narrow = privileges.narrow

    def narrow_and_lie(folder: Path, port: int) -> frozenset[privileges.Capability]:
        kept = narrow(folder, port)
        _lie(orders)
        return kept

    privileges.narrow = narrow_and_lie
    return main()


class Mallory:
    """The lying daemon of a lab, seen from a test; runs for the time of a `with` block.

    Args:
        info: the lab. The node's honest daemon must not run.
    """

    def __init__(self, info: LabInfo) -> None:
        self._info = info
        self._orders = info.folder / "orders"
        self._stack = ExitStack()
        self._process: Background | None = None

    def __enter__(self) -> Self:
        self._orders.write_text("")
        node, state = self._info.topology.node(LIAR), str(self._info.state(LIAR))
        settings = [f"{name}={value}" for name, value in self._info.settings.items()]
        words = ["env", *settings, sys.executable, str(Path(__file__)), str(self._orders)]
        words += ["-m", "node", "--state", state, "up"]
        self._process = self._stack.enter_context(background(node.netns, *words))
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def does(self, order: str) -> None:
        """Has it done; returns when it is."""
        assert self._process is not None
        with self._orders.open("a") as orders:
            orders.write(f"{order}\n")
        assert self._process.line(PATIENCE) == order


if __name__ == "__main__":
    path = Path(sys.argv.pop(1))
    del sys.argv[1:3]
    sys.exit(run(path))
