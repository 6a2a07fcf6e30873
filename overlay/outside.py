"""The outside routes of one node: those in force, its own wishes, and what stands against either.

    catalog: what all say ----+
    sessions: where they are -+--> in force --> route table, kernel
    this node's addresses ----+--> refused ---> status
                              '--> addresses inside of a route in force: not used in the underlay

A route must not contain the underlay, or the overlay would carry itself: what is sent to a member
would be routed to the node that advertises, and again. What counts as an underlay address:

- this node's own;
- where a member last answered in a session, wherever it says it is;
- where a member says it is, in its record, until it answers from outside of the route, or does not
  answer for `PATIENCE` although it is called.

The exceptions are against lies: a member that names addresses in another's network as its own would
end the route to it. The other way round nobody is believed to be inside of a route that is in
force: handshakes from there are refused, addresses there are not tried, and the status says so.

For its own routes a node asks none of this: what is behind it, it reaches without the overlay. It
leaves its addresses there out of its record, because from elsewhere the way to them is the overlay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import ClassVar, Final, NamedTuple

from overlay.catalog.catalog import Catalog, RouteChanges
from overlay.catalog.outside import (
    FORBIDDEN,
    NOT_CERTIFIED,
    Cover,
    Offer,
    Refused,
    announced,
    forbidden,
    judge,
    offer_of,
    settle,
)
from overlay.catalog.records import usable_endpoint
from overlay.complaints import Complaints
from overlay.effects import Effect, Report
from overlay.faults import Fault
from overlay.forwarding.path import PeerPath
from overlay.types import Endpoint, NodeId, Prefix
from overlay.wire.cluster import Cluster
from overlay.wire.handed import BYTES, INT, PREFIX, SECONDS, TEXT, Handed, pair, row, table

PATIENCE: Final = 5.0
"""Seconds that a member has to answer where it says it is; a handshake is repeated every second."""

CALLED: Final = 4
"""Members called at one look because an address of theirs stands in the way of a route."""


class Claim(NamedTuple):
    """A member says that it is reached inside of a prefix that another advertises."""

    prefix: Prefix
    node: NodeId
    endpoint: Endpoint


class Outside:
    """Decides which outside routes are in force on this node.

    Args:
        local: this node.
        cluster: whose ranges nobody may advertise.
        catalog: what members say.
        paths: where members with a session are.
        answered: where members last answered in a session, latest first.
        endpoints: this node's underlay addresses.
        name_of: a node's name.
        complaints: gets who advertises what no honest node would.

    Attributes:
        in_force: prefix -> the node that packets to it go to. To be read only.
        refused: what is advertised, or was to be by this node, and is not in force.
        refusals: how often a prefix was refused that was not before, by code.
    """

    HANDED: ClassVar = Handed(
        _doubts=table(row(pair, BYTES, PREFIX), SECONDS),
        refusals=table(TEXT, INT),
    )

    def __init__(
        self,
        *,
        local: NodeId,
        cluster: Cluster,
        catalog: Catalog,
        paths: Mapping[NodeId, PeerPath],
        answered: Mapping[NodeId, tuple[Endpoint, ...]],
        endpoints: Callable[[], tuple[Endpoint, ...]],
        name_of: Callable[[NodeId], str],
        complaints: Complaints,
    ) -> None:
        self._local = local
        self._cluster = cluster
        self._catalog = catalog
        self._paths = paths
        self._answered = answered
        self._endpoints = endpoints
        self._name_of = name_of
        self._complaints = complaints
        self._fresh: list[Refused] = []
        self._heard = 0
        self._offers: tuple[Offer, ...] = ()
        self._judged: tuple[Refused, ...] = ()
        self._claims: tuple[Claim, ...] = ()
        self._blocked: tuple[NodeId, ...] = ()
        self._cover = Cover()
        self._ways: dict[Prefix, bool] = {}
        self._way_cover = Cover()
        # Since when a member that never answered stands in the way. Kept as long as it is a member
        # and somebody offers the prefix: who takes its word back and says it again shall not be
        # waited for again, and two who work together shall not fill this with ever new prefixes.
        self._doubts: dict[tuple[NodeId, Prefix], float] = {}
        self.in_force: dict[Prefix, NodeId] = {}
        self.refused: tuple[Refused, ...] = ()
        self.refusals: dict[str, int] = {}

    # -- deciding ----------------------------------------------------------------------------------

    def take_changes(self, now: float) -> RouteChanges:
        """Look at everything again; what is otherwise in force than at the last look.

        Costs next to nothing while nobody advertises anything.
        """
        if self._catalog.heard.generation != self._heard:
            self._heard = self._catalog.heard.generation
            self._listen()
        before = self.in_force
        if not self._offers and not before:
            self._blocked = ()  # nobody stands in the way of what was withdrawn
            self._note(self._judged, now)
            return RouteChanges((), ())
        standing = self._standing(now)
        self.in_force, lost = settle(one for one in self._offers if one not in standing)
        self._note((*self._judged, *standing.values(), *lost), now)
        self._cover = Cover(one for one, node in self.in_force.items() if node != self._local)
        return RouteChanges(
            tuple(one for one in self.in_force.items() if before.get(one[0]) != one[1]),
            tuple(prefix for prefix in before if prefix not in self.in_force),
        )

    def _listen(self) -> None:
        """What members say, in view of nothing but their certificates."""
        judged: list[Refused] = []
        offers: list[Offer] = []
        for node, record in self._catalog.nodes.items():
            for prefix in record.routes:
                offer = offer_of(node, record.certificate.routes, prefix)
                refused = judge(offer, self._cluster)
                if refused is None:
                    offers.append(offer)
                else:
                    judged.append(refused)
        self._offers, self._judged = tuple(offers), tuple(judged)
        self._claims = tuple(self._said(Cover(offer.prefix for offer in offers)))
        known, offered = self._catalog.nodes, {offer.prefix for offer in offers}
        self._doubts = {
            (node, prefix): since
            for (node, prefix), since in self._doubts.items()
            if node in known and prefix in offered
        }

    def _said(self, cover: Cover) -> Iterator[Claim]:
        if cover:
            for node, record in self._catalog.nodes.items():
                for endpoint in record.endpoints:
                    for prefix in cover.of_host(endpoint.host):
                        yield Claim(prefix, node, endpoint)

    def _standing(self, now: float) -> dict[Offer, Refused]:
        """The offers of others that contain an underlay address."""
        cover = Cover(offer.prefix for offer in self._offers)
        against: dict[Prefix, list[Claim]] = {}
        for claim in (*self._proven(cover), *self._claims):
            against.setdefault(claim.prefix, []).append(claim)
        found: dict[Offer, Refused] = {}
        blocked: dict[NodeId, None] = {}
        for offer in self._offers:
            if offer.node == self._local:
                continue
            for prefix, node, endpoint in against.get(offer.prefix, ()):
                if not self._stands(offer, node, now):
                    continue
                why = f"it contains the underlay address {endpoint}"
                found.setdefault(offer, Refused(prefix, offer.node, FORBIDDEN, why, node))
                if node not in (self._local, offer.node):
                    blocked[node] = None  # all of them at once: each is waited for
        self._blocked = tuple(blocked)
        return found

    def _proven(self, cover: Cover) -> Iterator[Claim]:
        places = [(self._local, endpoint) for endpoint in self._endpoints()]
        nodes = dict.fromkeys((*self._paths, *self._answered))
        places += [(node, place) for node in nodes if (place := self._place(node)) is not None]
        for node, endpoint in places:
            for prefix in cover.of_host(endpoint.host):
                yield Claim(prefix, node, endpoint)

    def _place(self, node: NodeId) -> Endpoint | None:
        """Where a member answers, or did last; None if it never did."""
        path = self._paths.get(node)
        if path is not None and path.keypair is not None:
            return path.endpoint
        return next(iter(self._answered.get(node, ())), None)

    def _stands(self, offer: Offer, node: NodeId, now: float) -> bool:
        """Whether an address of `node` inside of an offer counts."""
        if node in (self._local, offer.node):
            return True
        place = self._place(node)
        if place is None:
            return now - self._doubts.setdefault((node, offer.prefix), now) < PATIENCE
        return any(Cover([offer.prefix]).of_host(place.host))

    def _note(self, refused: Iterable[Refused], now: float) -> None:
        known, self.refused = self.refused, tuple(refused)
        for one in self.refused:
            if one in known:
                continue
            self.refusals[one.code] = self.refusals.get(one.code, 0) + 1
            self._fresh.append(one)
            if one.other is None and one.node != self._local:
                # Its own record proves it. What collides with others may be an honest mistake.
                self._complaints.note(one.node, Fault(one.code), now, f"{one.prefix}: {one.why}")

    # -- what follows ------------------------------------------------------------------------------

    def own(self) -> tuple[Prefix, ...]:
        """What this node takes from the pod network to the outside."""
        return tuple(prefix for prefix, node in self.in_force.items() if node == self._local)

    def others(self) -> tuple[Prefix, ...]:
        """What goes to other nodes."""
        return tuple(prefix for prefix, node in self.in_force.items() if node != self._local)

    def is_offered(self, node: NodeId, version: int, address: int) -> bool:
        """Whether `node` advertises a network with that address, with consent, in force or not.

        What members see differs, where underlay addresses are concerned: it may be in force there.
        """
        offers = Cover(one.prefix for one in self._offers if one.node == node)
        return any(offers.of_number(version, address))

    def is_underlay(self, endpoint: Endpoint) -> bool:
        """Whether datagrams may be exchanged with `endpoint` as far as this is concerned.

        Not where the way there is the pod network: it must never carry itself.
        """
        inside = any(self._cover.of_host(endpoint.host)) or self._loops(endpoint.host)
        return usable_endpoint(endpoint, self._cluster) and not inside

    def follow(self, ways: Iterable[tuple[Prefix, bool]]) -> bool:
        """The machine's own routes have changed; whether that makes a difference.

        Args:
            ways: prefixes that somebody has routed into the TUN (True), and those inside of them
                that leave the machine otherwise (False).
        """
        changed = dict(ways)
        if changed == self._ways:
            return False
        self._ways, self._way_cover = changed, Cover(changed)
        return True

    def _loops(self, host: str) -> bool:
        """Whether the machine would send datagrams to `host` into the TUN."""
        found = list(self._way_cover.of_host(host)) if self._ways else []
        return bool(found) and self._ways[found[-1]]  # the narrowest comes last

    def to_call(self) -> tuple[NodeId, ...]:
        """Members whose addresses stand in the way, as far as they never answered anywhere."""
        unheard = [node for node in self._blocked if self._place(node) is None]
        return tuple(unheard[:CALLED])

    def ignored(self) -> tuple[Claim, ...]:
        """What members that never answered say of where they are, and is not believed."""
        return tuple(
            claim
            for claim in self._claims
            if self.in_force.get(claim.prefix) not in (None, self._local, claim.node)
            and claim.node != self._local
            and self._place(claim.node) is None
        )

    def affected(self) -> tuple[NodeId, ...]:
        """Members that claim addresses inside of what is advertised."""
        return tuple({claim.node: None for claim in self._claims})

    def take_reports(self) -> list[Effect]:
        """What was refused since the last call."""
        fresh, self._fresh = self._fresh, []
        reports: list[Effect] = []
        for one in fresh:
            name, prefix = self._name_of(one.node), str(one.prefix)
            fields = {"peer": name, "prefix": prefix, "code": one.code, "why": one.why}
            reports.append(Report("route.refused", fields))
        return reports

    def unannounced(
        self, wanted: Iterable[Prefix], certified: tuple[Prefix, ...]
    ) -> Iterator[Refused]:
        """What this node was told to advertise and does not, with the reason.

        Args:
            wanted: as its operator set it.
            certified: the routes of its certificate.
        """
        may = announced(wanted, certified, self._cluster)
        for prefix in wanted:
            if prefix not in may:
                why = forbidden(prefix, self._cluster)
                code = FORBIDDEN if why else NOT_CERTIFIED
                why = why or "this node's certificate does not allow it"
                yield Refused(prefix, self._local, code, why)
