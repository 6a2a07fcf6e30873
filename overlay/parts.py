"""The parts of one engine, made and joined in one place.

Reading order: what the cluster knows (catalog, store, gossip), what the packet path uses (routes,
paths, ledger, outbound, inbound), what joins them (sessions, peering, knowledge), what this node
holds (holdings, seeker, renewal, registrar), and the processes that share its work (lanes).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

from overlay.admission import Registrar
from overlay.catalog.catalog import Catalog
from overlay.catalog.keys import node_key
from overlay.catalog.reader import Reader
from overlay.catalog.removals import removal_key
from overlay.complaints import Complaints
from overlay.config import Settings
from overlay.distrust import Distrust
from overlay.forwarding.coalesce import Coalescer
from overlay.forwarding.inbound import Deliver, Inbound
from overlay.forwarding.ledger import Ledger
from overlay.forwarding.outbound import Outbound
from overlay.forwarding.path import PeerPath
from overlay.forwarding.sealer import Transmit
from overlay.gossip.local import LocalNode
from overlay.gossip.machine import Gossip
from overlay.gossip.store import Store
from overlay.holdings import Holdings
from overlay.hostports import HostPorts
from overlay.keys import SigningKey
from overlay.knowledge import Knowledge
from overlay.lanes.director import Director
from overlay.losses import LossReports
from overlay.outside import Outside
from overlay.own_record import OwnRecord
from overlay.peering import Contact, Peering
from overlay.refusals import Refusals
from overlay.renewal import Renewal
from overlay.routing.table import RouteTable
from overlay.seeking import BlockSeeker
from overlay.session.handshake import RevokedError
from overlay.session.sessions import Sessions
from overlay.signers import Signers
from overlay.state import NodeState
from overlay.tending import Tending
from overlay.types import Entropy, NodeId, short_id
from overlay.views import NodeState as Liveness
from overlay.wall import Wall
from overlay.wire.certificate import Certificate, Identity
from overlay.wire.claims import prove_alive
from overlay.wire.cluster import Cluster
from overlay.wire.items import Item
from overlay.wire.reassembly import Reassembly


class Parts:
    """All machines of one node. Arguments as for `overlay.engine.Engine`."""

    def __init__(
        self,
        *,
        identity: Identity,
        cluster: Cluster,
        psk: bytes,
        state: NodeState,
        settings: Settings,
        entropy: Entropy,
        rng: random.Random,
        epoch: float,
        deliver: Deliver,
        transmit: Transmit,
        authorities: Sequence[SigningKey],
        version: str,
        lanes: int = 1,
        reader: Reader | None = None,
    ) -> None:
        self._identity = identity
        self.timing, self.record_interval = settings.timing, settings.timing.record_interval
        self.wall = Wall(epoch)
        # None until the first moment is told: what is restored before it was admitted once, and a
        # clock that is wrong at start must not make this node forget everybody.
        self._now: float | None = None
        self.local = identity.node
        self.complaints = Complaints()
        self.refusals = Refusals(self.complaints, identity.node)
        self.own_key = node_key(identity.node)
        self.reader = reader or Reader(cluster, settings.limits)
        self.plan = self.reader.plan
        self.catalog = Catalog(cluster, self.plan, settings.limits, self.reader, self.local)
        self.store = Store(self._admit, settings.limits, self.reader.id_of)
        self.gossip = self._make_gossip(cluster, state, settings, rng)
        self._make_book = partial(_registrar, cluster, psk, state, settings)
        self._take_keys(authorities)
        self.sessions = self._make_sessions(
            psk=psk, boot=state.boot, settings=settings, entropy=entropy, rng=rng
        )
        self._make_packet_path(settings, deliver, transmit)
        self.peering = Peering(
            sessions=self.sessions,
            outbound=self.outbound,
            paths=self.paths,
            losses=LossReports(self.reassembly, self.sessions.keypairs),
            directory=self._contact,
            usable=lambda endpoint: self.outside.is_underlay(endpoint),  # it comes later
            settings=settings,
        )
        self.outbound.find = self.inbound.find = self.peering.path_to
        self.inbound.is_hopeless = self.sessions.is_hopeless
        self.tending = Tending(self.peering, settings.timing, self.gossip.is_dead)
        self.outside = self._make_outside(cluster)
        self.distrust = self._make_distrust()
        self.knowledge = self._make_knowledge()
        self.holdings = self._make_holdings(state, settings)
        self.hostports = HostPorts(dual=cluster.cidr6 is not None)
        self.record = self._make_record(state, version, settings)
        self.lanes = self._director(lanes)
        self.seeker = self._make_seeker(rng)
        self.renewal = self._make_renewal(rng)

    def _make_sessions(
        self,
        *,
        psk: bytes,
        boot: int,
        settings: Settings,
        entropy: Entropy,
        rng: random.Random,
    ) -> Sessions:
        return Sessions(
            identity=self._identity,
            psk=psk,
            boot=boot,
            settings=settings,
            wall=self.wall,
            entropy=entropy,
            rng=rng,
            token_secret=self._token_secret,
            read_certificate=self._read_certificate,
        )

    def _take_keys(self, authorities: Sequence[SigningKey]) -> None:
        self.signers = Signers(authorities, lambda: self.catalog.judge.trust)
        self.book = self._make_book(self.signers.any)

    def _make_gossip(
        self, cluster: Cluster, state: NodeState, settings: Settings, rng: random.Random
    ) -> Gossip:
        signing = self._identity.signing
        local = LocalNode(
            node=self._identity.node,
            boot=state.boot,
            prove=lambda *start: prove_alive(signing, cluster.id, *start),
            is_proven=self.reader.is_proven,
            complaints=self.complaints,
        )
        return Gossip(local, self.store, settings.timing, rng, self.name_of)

    def _make_packet_path(self, settings: Settings, deliver: Deliver, transmit: Transmit) -> None:
        limits = self.limits = settings.limits
        self.ledger = Ledger()
        self.routes = RouteTable()
        self.paths: dict[NodeId, PeerPath] = {}
        self.outbound = Outbound(
            local=self._identity.node,
            routes=self.routes,
            peers=self.paths,
            ledger=self.ledger,
            transmit=transmit,
            queued_packets=limits.queued_packets,
            queued_bytes=limits.queued_bytes,
        )
        self.reassembly = Reassembly(
            per_session=limits.reassembly_per_session,
            total=limits.reassembly_total,
            expires_after=settings.timing.reassembly_after,
        )
        self.inbound = Inbound(
            local=self._identity.node,
            routes=self.routes,
            peers=self.paths,
            keypairs=self.sessions.keypairs,
            ledger=self.ledger,
            deliver=deliver,
            reassembly=self.reassembly,
            coalescer=Coalescer(tso="tso" in settings.offloads, uso="uso" in settings.offloads),
        )

    def _make_outside(self, cluster: Cluster) -> Outside:
        return Outside(
            local=self.local,
            cluster=cluster,
            catalog=self.catalog,
            paths=self.paths,
            answered=self.peering.addresses.answered,
            endpoints=lambda: self.record.endpoints,
            name_of=self.name_of,
            complaints=self.complaints,
        )

    def _make_distrust(self) -> Distrust:
        return Distrust(
            identity=self._identity,
            store=self.store,
            catalog=self.catalog,
            gossip=self.gossip,
            peering=self.peering,
            wall=self.wall,
        )

    def _make_knowledge(self) -> Knowledge:
        return Knowledge(
            local=self.local,
            outside=self.outside,
            store=self.store,
            catalog=self.catalog,
            gossip=self.gossip,
            peering=self.peering,
            routes=self.routes,
            outbound=self.outbound,
            inbound=self.inbound,
            distrust=self.distrust,
            restarted=self.tending.on_restart,
        )

    def _make_holdings(self, state: NodeState, settings: Settings) -> Holdings:
        return Holdings(
            identity=self._identity,
            catalog=self.catalog,
            plan=self.plan,
            state=state,
            quarantine=settings.timing.quarantine,
        )

    def _make_record(self, state: NodeState, version: str, settings: Settings) -> OwnRecord:
        record = OwnRecord(
            identity=self._identity,
            catalog=self.catalog,
            plan=self.plan,
            holdings=self.holdings,
            boot=state.boot,
            software=version,
            is_authority=lambda: self.authority is not None,
            limits=settings.limits,
        )
        record.routes = settings.routes
        return record

    def _make_seeker(self, rng: random.Random) -> BlockSeeker:
        return BlockSeeker(self.catalog, self._identity.node, self.timing, rng, self._is_ready)

    def _make_renewal(self, rng: random.Random) -> Renewal:
        return Renewal(
            identity=self._identity,
            timing=self.timing,
            rng=rng,
            wall=self.wall,
            certifiers=self._certifiers,
            issuer=self.issuer,
            read=self._read_certificate,
            name_of=self.name_of,
        )

    def _director(self, lanes: int) -> Director:
        return Director(
            lanes=lanes,
            sessions=self.sessions,
            peering=self.peering,
            routes=self.routes,
            addresses=lambda: (self.holdings.address, self.holdings.address6),
        )

    @property
    def authority(self) -> SigningKey | None:
        """The key of the authority in use; None if it is not here."""
        return self.signers.in_use

    @property
    def registrar(self) -> Registrar | None:
        """Certifies nodes, with the key of the authority in use; None if that is not here.

        What it remembers is `book`, here and with whatever key.
        """
        key = self.authority
        if key is None or self.book is None:
            return None
        self.book.authority = key
        return self.book

    def hold(self, key: SigningKey) -> None:
        """Hold another private key of an authority, or one in place of a locked one."""
        self.signers.add(key)
        self.book = self.book or self._make_book(key)

    def tell_time(self, now: float) -> None:
        """Tell what time it is, in monotonic seconds: certificates and tokens expire."""
        self._now = now

    def name_of(self, node: NodeId) -> str:
        """The node's name, or the start of its id while its record is not known."""
        record = self.catalog.nodes.get(node) or self.catalog.void.get(node)
        if record is None:
            removal = self.catalog.removed.get(node)
            return removal.name if removal else short_id(node)
        return record.certificate.name

    def issuer(self) -> bytes:
        """Key of the authority that signs new certificates at present."""
        return self.catalog.judge.trust.in_use

    def _certifiers(self, now: float) -> list[NodeId]:
        """Ready members that say they can certify."""
        others = (one for one in self.catalog.nodes.values() if one.node != self.local)
        able = [record.node for record in others if record.is_authority and not record.left]
        return [node for node in able if self._is_ready(node, now)]

    def _is_ready(self, node: NodeId, now: float) -> bool:
        return self.gossip.state(node, now) is Liveness.READY

    def _contact(self, node: NodeId) -> Contact | None:
        record = self.catalog.nodes.get(node)
        if record is None or record.left or node == self._identity.node:
            return None
        certificate = record.certificate
        return Contact(certificate.static, record.endpoints, certificate.not_after)

    def _admit(self, item: Item) -> bool:
        wall = None if self._now is None else self.wall.at(self._now)
        return self.refusals.admit(item, self.catalog, wall)

    def _read_certificate(self, data: bytes) -> Certificate:
        certificate = self.reader.certificate(data)
        self.catalog.judge.trust.check_issuer(certificate)
        if certificate.node in self.catalog.removed:
            removal = self.store.get(removal_key(certificate.node))
            raise RevokedError(b"" if removal is None else removal.body)
        return certificate

    def _token_secret(self, token: bytes) -> bytes | None:
        if self.registrar is None or self._now is None:
            return None
        return self.registrar.tokens.secret(token, self.wall.at(self._now))


def _registrar(
    cluster: Cluster, psk: bytes, state: NodeState, settings: Settings, key: SigningKey | None
) -> Registrar | None:
    if key is None:
        return None
    return Registrar(
        key,
        cluster=cluster,
        psk=psk,
        tokens=state.tokens,
        names=state.names,
        lifetime=settings.certificate_lifetime,
    )
