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

The same from a file, with something expected of it (`muslin sim` does this):

    >>> from overlay.sim import Play, parse
    >>> scenario = parse('''
    ... title = "a node dies"
    ... until = 40.0
    ... [cluster]
    ... nodes = 4
    ... [[event]]
    ... at = 3.0
    ... do = "crash"
    ... nodes = 1
    ... [[expect]]
    ... event = "crash"
    ... within = 35.0
    ... ''')
    >>> outcome = Play(scenario, seed=7).run()
    >>> outcome.failures(scenario.expect)
    []

Reading order, from the network to the whole:

    time          `clock`, and as a machine sees it `localtime`, `timer`
    network       `lots` (what chance decides), `link`, `nat`, `underlay`
    faults        `faults` (cuts, disks), `processor` (pauses, starvation)
    a machine     `inbox`, `port`, `executor`, `machine`; `applicant` still has to join
    a cluster     `authority`, `reader`, `site`, `world`; `packets` that pods send
    judging       `notary` and `inspector` (what must be true at every moment), `checks` (in the
                  end), `trace` (what happened), `deaths`
    at random     `schedules`, `steps`, `hostile`
    scenarios     `scenario` (the file), `typed`, `selection`, `spec`; `stage`, `acts`, `mishaps`
                  (what can happen); `play`, `metrics`, `goals`, `outcome` (what came of it)

References:
    FoundationDB's simulation (Zhou et al. 2021, section 4): one thread, seeded, faults included.
    smoltcp's and trio's simulated networks: the simulator as a product of its own.
"""

from __future__ import annotations

from overlay.sim.faults import Power
from overlay.sim.inspector import Inspector, InvariantError
from overlay.sim.link import Link, Lost
from overlay.sim.machine import Machine
from overlay.sim.packets import udp
from overlay.sim.play import Play
from overlay.sim.scenario import parse
from overlay.sim.site import Membership
from overlay.sim.trace import Trace
from overlay.sim.world import ADDRESSES6, NotReachedError, World

__all__ = [
    "ADDRESSES6",
    "Inspector",
    "InvariantError",
    "Link",
    "Lost",
    "Machine",
    "Membership",
    "NotReachedError",
    "Play",
    "Power",
    "Trace",
    "World",
    "parse",
    "udp",
]
