"""Many nodes in one process: unmodified engines on virtual time over links that fail on purpose.

    >>> from overlay.sim import Link, World, udp
    >>> world = World(seed=7, link=Link(loss=0.05))
    >>> for name in ("node2", "node3"):
    ...     _ = world.join(name)
    >>> seconds = world.run_until(world.converged, timeout=30.0)
    >>> web, db = world["node2"].add_pod("web"), world["node3"].add_pod("db")
    >>> world.set_link("node2", "node3", Link())
    >>> world.send_packet("node2", udp(web.address, db.address, b"hello"))
    >>> world.run(until=world.now + 0.5)
    >>> [packet[28:] for packet in world["node3"].delivered]
    [b'hello']
    >>> world.check_invariants()

Protocol promises are proven here, because here a minute costs milliseconds, an outage is one call,
and a failure comes with the seed that brings it back. What the kernel does is proven elsewhere, in
network namespaces.

Reading order: `clock` (time), `link` and `underlay` (what is between machines), `faults` (what
breaks), `machine` (a driver for one engine), `applicant` (one that still has to join), `world` (all
of it together), `checks` (what must be true), `trace` (what happened), `packets` (what pods send).

References:
    FoundationDB's simulation (Zhou et al. 2021, section 4): one thread, seeded, faults included.
    smoltcp's and trio's simulated networks: the simulator as a product of its own.
"""

from __future__ import annotations

from overlay.sim.faults import Power
from overlay.sim.link import Link, Lost
from overlay.sim.machine import Machine
from overlay.sim.packets import udp
from overlay.sim.site import Membership
from overlay.sim.trace import Trace
from overlay.sim.world import ADDRESSES6, NotReachedError, World

__all__ = [
    "ADDRESSES6",
    "Link",
    "Lost",
    "Machine",
    "Membership",
    "NotReachedError",
    "Power",
    "Trace",
    "World",
    "udp",
]
