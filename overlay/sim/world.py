"""A whole cluster in one process: machines, the network between them, and time.

    World ---- clock       one time for all, jumps from event to event
      |------- underlay    links, cuts
      |------- machines    disk, TUN, engine
      |------- authority   certifies machines, with and without the join exchange
      '------- trace       everything that happened

Nothing in here is random but by the seed, and nothing takes time but by the clock: a world with the
same seed and the same calls does the same to the last byte.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from overlay.config import Settings
from overlay.errors import OverlayError, StateError
from overlay.joining import JoinOutcome
from overlay.sim.applicant import Applicant
from overlay.sim.authority import Authority
from overlay.sim.checks import differences
from overlay.sim.clock import Clock
from overlay.sim.inspector import Inspector
from overlay.sim.link import Link
from overlay.sim.localtime import TRUE, Clocks
from overlay.sim.machine import Machine
from overlay.sim.nat import TIMEOUT, Nat, NatKind
from overlay.sim.notary import Notary
from overlay.sim.site import Membership, Site
from overlay.sim.trace import WORLD, Trace
from overlay.sim.underlay import Underlay
from overlay.state import NodeState
from overlay.types import DEFAULT_PORT, Endpoint, Prefix
from overlay.views import Snapshot
from overlay.wire.certificate import Identity
from overlay.wire.items import Item

EPOCH: Final = 1_767_225_600.0
"""Virtual time zero is the first second of 2026: a simulation cannot depend on today."""

LIFETIME: Final = 10 * 365 * 86_400
"""Seconds. Certificates outlive any simulation unless it asks for otherwise."""

ADDRESSES: Final = ip_network("198.18.0.0/15")
"""Underlay addresses, from the range for benchmarks (RFC 2544, appendix C.2.2)."""

ADDRESSES6: Final = ip_network("2001:db8::/64")
"""The same for an IPv6 underlay, from the range for documentation (RFC 3849)."""

PRIVATE: Final = ip_network("172.16.0.0/12")
"""Addresses behind NATs (RFC 1918). No two NATs use one, so that an address is one machine's."""

CIDR: Final = IPv4Network("10.244.0.0/16")
CIDR6: Final = IPv6Network("fd4d:7573:6c69::/48")

LOOK_INTERVAL: Final = 0.05
"""How often `run_until` looks: its answer is that exact."""


class NotReachedError(OverlayError):
    """What `run_until` waited for did not come in time. Names the seed: it can be seen again."""


class World:
    """A cluster with one member, the founder, who holds the authority's key. Add machines to it.

    Args:
        seed: of everything random.
        settings: of every engine.
        link: between any two machines that `set_link` does not name.
        founder: name of the first machine.
        cidr, cidr6, block_prefix: the cluster's ranges.
        underlay: range that machines get their underlay addresses from, IPv4 or IPv6.
        keep_datagrams: whether the trace keeps datagrams; a big world is lighter without.
        check: whether the invariants are checked after every event, which costs a tenth or two; in
            a world of more than a hundred machines every few seconds. See `overlay.sim.inspector`.

    Attributes:
        nats: which NAT a machine is behind, by its name; to be set before it is added.
        clocks: how a machine's clocks differ from the world's, as above.
        doubles: machines that share their identity with another: clones and their originals.
    """

    def __init__(
        self,
        seed: int,
        *,
        settings: Settings | None = None,
        link: Link | None = None,
        founder: str = "node1",
        cidr: IPv4Network = CIDR,
        cidr6: IPv6Network | None = CIDR6,
        block_prefix: int = 24,
        underlay: Prefix = ADDRESSES,
        keep_datagrams: bool = True,
        check: bool = True,
    ) -> None:
        self.seed = seed
        self.clock = Clock()
        self.trace = Trace(datagrams=keep_datagrams)
        self.underlay = Underlay(
            seed=str(seed), clock=self.clock, trace=self.trace, link=link or Link()
        )
        self.machines: dict[str, Machine] = {}
        self.applicants: dict[str, Applicant] = {}
        self.founder = founder
        self.nats: dict[str, Nat] = {}
        self.clocks: dict[str, Clocks] = {}
        self.doubles: set[str] = set()
        self._hosts = map(str, underlay.hosts())
        self._private = map(str, PRIVATE.hosts())
        self._site = Site(self.clock, self.trace, self.underlay, settings or Settings(), EPOCH)
        self._entropy = random.Random(f"{seed}/world").randbytes
        self.notary = Notary()
        self.inspector = Inspector(self.notary, self.machines, self.clock, seed)
        self._check = check
        self._shown: dict[str, tuple[tuple[int, bytes], Snapshot]] = {}
        self._authority = Authority(
            self._entropy,
            founder,
            make_key=self.notary.key,
            cidr=cidr,
            cidr6=cidr6,
            block_prefix=block_prefix,
            wall=int(EPOCH),
            lifetime=LIFETIME,
        )
        self.cluster = self._authority.cluster
        self.add_machine(founder, self._authority.founder)

    def __getitem__(self, name: str) -> Machine:
        """The machine of that name; KeyError if there is none."""
        return self.machines[name]

    # -- machines --------------------------------------------------------------------------------

    def add_node(
        self,
        name: str,
        *,
        via: str | None = None,
        seeds: Sequence[str] = (),
        lifetime: int = LIFETIME,
    ) -> Machine:
        """A machine that got its certificate offline. It starts now.

        Args:
            name: unique in the world.
            via: whose stored knowledge it starts with; the founder's unless given.
            seeds: running machines; it then knows their records and nothing else.
            lifetime: seconds until its certificate expires.
        """
        if seeds:
            known = (self.machines[seed] for seed in seeds if self.machines[seed].live)
            records = [record for one in known if (record := one.own_record()) is not None]
            return self.add_machine(name, self.membership(name, lifetime=lifetime), records)
        sponsor = self.machines[via or self.founder].stored
        return self.add_machine(name, self.membership(name, lifetime=lifetime), sponsor.items)

    def join(self, name: str, token: str | None = None) -> Applicant:
        """A machine that runs the join exchange with the founder and starts when admitted.

        Until then it is in `applicants`, and the world is not settled.

        Args:
            name: unique in the world.
            token: a fresh one of the founder's unless given.
        """
        self._check_name_is_new(name)
        applicant = self.applicants[name] = Applicant(
            name=name,
            endpoint=self._new_endpoint(name),
            site=self._site,
            token=token or self.machines[self.founder].mint_token(),
            seed=self._entropy(16).hex(),
            make_key=self.notary.key,
            admitted=partial(self._admit, name),
        )
        return applicant

    def _admit(self, name: str, identity: Identity, outcome: JoinOutcome) -> None:
        endpoint = self.applicants.pop(name).endpoint
        membership = Membership(identity, outcome.cluster, outcome.psk)
        self._add(name, membership, outcome.items, endpoint)

    def add_machine(self, name: str, membership: Membership, items: Sequence[Item] = ()) -> Machine:
        """A machine with this membership, whatever it is worth, and these items. It starts now.

        Raises:
            StateError: the name is taken. Nothing else.
        """
        self._check_name_is_new(name)
        return self._add(name, membership, items, self._new_endpoint(name))

    def _check_name_is_new(self, name: str) -> None:
        if name in self.machines or name in self.applicants:
            raise StateError(f"there is a {name} already")

    def _add(
        self, name: str, membership: Membership, items: Sequence[Item], endpoint: Endpoint
    ) -> Machine:
        machine = self._machine(name, membership, endpoint)
        machine.disk.restore(NodeState(items=tuple(items)).entries())
        machine.start()
        return machine

    def _machine(self, name: str, membership: Membership, endpoint: Endpoint) -> Machine:
        machine = self.machines[name] = Machine(
            name=name,
            endpoint=endpoint,
            site=self._site,
            seed=str(self.seed),
            membership=membership,
            clocks=self.clocks.get(name, TRUE),
        )
        if self._check:
            machine.acted = self.inspector.acted
        return machine

    def _new_endpoint(self, name: str) -> Endpoint:
        nat = self.nats.get(name)
        if nat is None:
            return Endpoint(next(self._hosts), DEFAULT_PORT)
        endpoint = Endpoint(next(self._private), DEFAULT_PORT)
        self.underlay.put_behind(endpoint, nat)
        return endpoint

    def add_nat(self, name: str, kind: NatKind, timeout: float = TIMEOUT) -> Nat:
        """A NAT with a public address of its own. Put machines behind it by `nats`."""
        return Nat(name, next(self._hosts), kind, timeout)

    def membership(
        self, name: str, *, lifetime: int = LIFETIME, routes: Iterable[Prefix] = ()
    ) -> Membership:
        """New keys for `name`, certified for `lifetime` seconds and for outside `routes`."""
        return self._authority.membership(name, int(EPOCH + self.now), lifetime, routes)

    # -- time ------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds of virtual time since the world began."""
        return self.clock.now

    def run(self, until: float) -> None:
        """Let everything happen up to and including `until`, in seconds since the beginning."""
        self.clock.run(until)

    def run_until(self, predicate: Callable[[], bool], timeout: float) -> float:
        """Run until `predicate` holds, looking every `LOOK_INTERVAL`.

        Returns:
            The virtual seconds it took.

        Raises:
            NotReachedError: it did not hold within `timeout` seconds; says what is missing.
        """
        began = self.now
        while not predicate():
            if self.now >= began + timeout:
                missing = "; ".join(self.differences()) or "but the cluster is settled"
                raise NotReachedError(
                    f"not within {timeout} s (now {self.now:.2f}, seed {self.seed}): {missing}"
                )
            self.run(self.now + LOOK_INTERVAL)
        return self.now - began

    def every(self, interval: float, action: Callable[[], None]) -> None:
        """Do `action` now and every `interval` seconds from now on; checks, mostly."""
        action()
        self.clock.at(self.now + interval, lambda: self.every(interval, action))

    # -- faults ----------------------------------------------------------------------------------

    def set_link(self, one: str, other: str, link: Link) -> None:
        """Replace the link between two machines, both ways."""
        self.underlay.set_link(one, other, link)

    def cut(self, one: str, other: str, *, one_way: bool = False) -> None:
        """Nothing passes from `one` to `other` any more, nor back unless `one_way`."""
        self.underlay.cuts.cut(one, other, one_way=one_way)
        self._note("link.cut", between=f"{one} {other}", one_way=one_way)

    def partition(self, *groups: Iterable[str], one_way: bool = False) -> None:
        """Nothing passes between these groups any more; with `one_way`, to earlier ones it does."""
        named = [list(group) for group in groups]
        self.underlay.cuts.partition(named, one_way=one_way)
        self._note("network.partitioned", sizes=" ".join(str(len(group)) for group in named))

    def heal(self, one: str | None = None, other: str | None = None) -> None:
        """Mend what is cut between two machines; all cuts without arguments."""
        if one is None or other is None:
            self.underlay.cuts.heal_all()
            self._note("network.healed")
        else:
            self.underlay.cuts.heal(one, other)
            self._note("link.healed", between=f"{one} {other}")

    def crash(self, name: str) -> None:
        """Kill the process on a machine: everything but what it wrote is gone."""
        self.machines[name].crash()

    def power_loss(self, name: str) -> None:
        """Cut the power of a machine: also what it wrote and did not sync is gone.

        See `Disk.fsync`: a disk that keeps its promise loses nothing more than with `crash`.
        """
        self.machines[name].power_loss()

    def restart(self, name: str) -> None:
        """Start a machine from its disk, after a crash if it was running."""
        machine = self.machines[name]
        if machine.live:
            machine.crash()
        machine.start()

    def restore(self, name: str, image: Mapping[bytes, bytes]) -> None:
        """Put a backup of a machine's disk back and start it from that. See `Disk.image`."""
        machine = self.machines[name]
        if machine.live:
            machine.crash()
        self.inspector.excuse(machine.membership.identity.node)
        machine.disk.restore(image)
        self._note("disk.restored", machine=name)
        machine.start()

    def clone(self, name: str, copy: str) -> Machine:
        """A second machine, `copy`, starts from a copy of a machine's disk, keys included.

        Raises:
            StateError: `copy` is the name of another machine. Nothing else.
        """
        self._check_name_is_new(copy)
        original = self.machines[name]
        machine = self._machine(copy, original.membership, self._new_endpoint(copy))
        machine.disk.restore(original.disk.image())
        self.inspector.excuse(original.membership.identity.node)
        self.doubles |= {name, copy}
        self._note("machine.cloned", machine=name, copy=copy)
        machine.start()
        return machine

    def move(self, name: str) -> None:
        """Give a machine another underlay address, as when a NAT rebinds. Nobody is told."""
        self.machines[name].move(self._new_endpoint(name))

    def _note(self, event: str, **fields: str | bool) -> None:
        self.trace.note(event, WORLD, fields, self.now)

    # -- packets ---------------------------------------------------------------------------------

    def send_packet(self, name: str, packet: bytes) -> None:
        """An IP packet comes out of a pod of machine `name`. See `Machine.delivered`."""
        self.machines[name].send_packet(packet)

    # -- judging ---------------------------------------------------------------------------------

    def live(self) -> list[Machine]:
        """Machines whose engine runs and is a member, in the order they were added."""
        return [machine for machine in self.machines.values() if machine.live]

    def differences(self) -> Iterator[str]:
        """What keeps the live nodes from agreeing; nothing when settled (`overlay.sim.checks`)."""
        for applicant in self.applicants.values():
            failure = applicant.failure
            yield f"{applicant.name} is not admitted" + (f": {failure}" if failure else "")
        live = self.live()
        nodes = {machine.membership.identity.name for machine in live}
        names = [machine.name for machine in live]
        yield from differences(names, lambda name: self._show(self.machines[name]), nodes)

    def converged(self) -> bool:
        """Whether all live nodes have blocks, know each other, and agree on routes and pods."""
        return next(self.differences(), None) is None

    def settled(self) -> bool:
        """Whether all live nodes have converged and hold the same items, to the last byte."""
        roots = {machine.engine.parts.store.root() for machine in self.live()}
        return len(roots) <= 1 and self.converged()

    def check_invariants(self) -> None:
        """Look at all that must hold at every moment; raises InvariantError where it does not."""
        self.inspector.look()

    def _show(self, machine: Machine) -> Snapshot:
        """A snapshot as old as the last change of anything that `differences` looks at.

        Taking one costs milliseconds, and `run_until` looks at all machines twenty times a second.
        """
        state = (machine.changes, machine.engine.parts.store.root())
        kept = self._shown.get(machine.name)
        if kept is None or kept[0] != state:
            kept = self._shown[machine.name] = state, machine.snapshot()
        return kept[1]
