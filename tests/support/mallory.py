"""A real daemon that lies: `muslin up` with one thing more, a file that it reads orders from.

    python tests/support/mallory.py ORDERS -m node --state FOLDER up

Each line of ORDERS is the name of one of `ORDERS_TAKEN`, or of a lie of `tests.sim.test_insider`:
the very functions that lie in the simulator. When it has been told, its name goes to the standard
output. Beyond that it is the daemon, with valid keys, an honest record and all its privileges
dropped; the words behind ORDERS are those by which labs find their daemons.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from ipaddress import ip_network
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
from overlay.wire.authority import Act, list_item, sign_link
from overlay.wire.claims import Claim, ClaimState
from overlay.wire.items import Item
from overlay.wire.messages import Claims
from overlay.wire.packing import U64
from tests.sim import test_insider, test_insider_floods
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
        self.machine = _Machine(daemon)
        self.world = _Others(self)
        engine = daemon.engine
        names = {VICTIM: f"{VICTIM}-pod1", TOLD: f"{TOLD}-pod1", "mallory": f"{LIAR}-pod1"}
        catalog, plan = engine.parts.catalog, engine.parts.plan
        placed = {pod.name: plan.address4(pod.block, pod.host) for _, pod in catalog.pods()}
        self.pods = {name: placed[pod] for name, pod in names.items() if pod in placed}

    def node(self, name: str) -> NodeId:
        """The id of a node; the liar's under either name."""
        record = self.machine.engine.parts.catalog.by_name(LIAR if name == "mallory" else name)
        assert record is not None
        return record.node


class _Machine:
    """Stands for a simulated machine."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.name = LIAR
        self.engine = daemon.engine
        self.membership = SimpleNamespace(identity=daemon.engine.identity)
        self.perform = daemon.perform

    @property
    def now(self) -> float:
        return self._daemon.now()


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

    def every(self, interval: float, action: Callable[[], None]) -> None:
        """Do something again and again, until there is peace."""

        async def go_on() -> None:
            while True:
                action()
                await asyncio.sleep(interval)

        _GOING_ON.append(spawn(go_on(), name="mallory"))


_GOING_ON: Final[list[asyncio.Task[None]]] = []
"""What is done again and again."""


# -- orders that are no lies of the simulator ------------------------------------------------------


def victims_death(insider: RealInsider) -> None:
    """The victim is dead, as it is now."""
    claim = insider.machine.engine.parts.gossip._liveness.hearsay.members.claim
    said = claim(insider.node(VICTIM))
    death = Claim(said.node, said.boot, said.incarnation, ClaimState.DEAD, True, said.proof)
    insider.say(Claims((death,)), TOLD, BYSTANDER)


def own_record(insider: RealInsider, **changes: Any) -> Item:
    """Its own record, properly signed, a little newer than the last and otherwise than it is."""
    parts = insider.machine.engine.parts
    record = parts.catalog.nodes[parts.local]
    said: dict[str, Any] = {
        "version": record.version + next(_NUMBERS),
        "endpoints": record.endpoints,
        "blocks_in_use": record.blocks_in_use,
        "pods": record.pods,
        "removals": record.removals,
        **changes,
    }
    return sign_record(insider.machine.engine.identity, **said)


_NUMBERS: Final = itertools.count(1)


def victims_block_in_its_record(insider: RealInsider) -> None:
    """The victim's block among its own."""
    nodes = insider.machine.engine.parts.catalog.nodes
    blocks = [nodes[insider.node(name)].blocks_in_use for name in (LIAR, VICTIM)]
    stolen = own_record(insider, blocks_in_use=tuple(itertools.chain(*blocks)))
    insider.tell(stolen, to=(TOLD, BYSTANDER))


def a_network_without_consent(insider: RealInsider) -> None:
    """Everything behind it, though its certificate allows nothing."""
    insider.tell(own_record(insider, routes=[ip_network("192.168.0.0/16")]))


def a_default_route(insider: RealInsider) -> None:
    """All of the internet."""
    insider.tell(own_record(insider, routes=[ip_network("0.0.0.0/0")]))


def half_of_the_victims_block(insider: RealInsider) -> None:
    """A prefix that is more specific than the victim's."""
    parts = insider.machine.engine.parts
    (block, *_) = parts.catalog.nodes[insider.node(VICTIM)].blocks_in_use
    half, _ = parts.plan.prefix4(block).subnets()
    insider.tell(own_record(insider, routes=[half]))


def an_authority_of_its_own(insider: RealInsider) -> None:
    """A link that installs it, in the authority's name."""
    engine = insider.machine.engine
    own, trust = engine.identity.signing, engine.parts.catalog.judge.trust
    forger = test_insider._Forger(own, trust.in_use)
    link = sign_link(
        forger, engine.cluster, trust.links, Act.INSTALL, own.public, time=int(time.time())
    )
    insider.tell(list_item([*trust.links, link]))


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
    """Its own block, signed over to two takers; who hears first the one that loses sees both."""
    engine = insider.machine.engine
    (block, *_) = engine.parts.holdings.owned()
    chain = engine.parts.catalog.titles.chain(block)
    one, other = (
        deed_item(
            sign_deed(
                engine.identity.signing, chain, insider.node(taker), cluster=engine.cluster.id
            )
        )
        for taker in (TOLD, BYSTANDER)
    )
    insider.tell(one, other, to=(TOLD,))
    insider.tell(other, one, to=(BYSTANDER,))


def new_records(insider: RealInsider) -> None:
    """Its own record, again and again, always a little newer."""

    def write() -> None:
        for _ in range(5):
            insider.tell(own_record(insider))

    insider.world.every(0.05, write)


def a_jump_of_its_version(insider: RealInsider) -> None:
    """Its own record, in the last version but one that there is; said until it is heard."""
    jump = own_record(insider, version=U64 - 1)
    insider.world.every(0.5, lambda: insider.tell(jump))


def peace(_: RealInsider) -> None:
    """Stop what goes on."""
    while _GOING_ON:
        _GOING_ON.pop().cancel()


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
        a_network_without_consent,
        a_default_route,
        half_of_the_victims_block,
        an_authority_of_its_own,
        two_deeds,
        new_records,
        a_jump_of_its_version,
        peace,
        be_deaf,
    )
}


def _flood(say: Callable[[RealInsider, int], None], per_second: int, insider: RealInsider) -> None:
    test_insider_floods.flood(insider, partial(say, insider), per_second)


def _order(name: str) -> Callable[[RealInsider], None]:
    """What a line of ORDERS means; a flood of the simulator goes on until there is `peace`."""
    for say, per_second in test_insider_floods.FLOODS:
        if say.__name__ == name:
            return partial(_flood, say, per_second)
    return ORDERS_TAKEN.get(name) or getattr(test_insider, name)


# -- the process -----------------------------------------------------------------------------------


async def take_orders(daemon: Daemon, orders: Path) -> None:
    """Do what is written to the file, line by line, as it is written."""
    done = 0
    while True:
        for name in _read(orders)[done:]:
            done += 1
            _order(name)(RealInsider(daemon))
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
