"""What the operator and the machine around a node ask of it: one method each, effects settled.

`Engine` inherits these. What they raise is said where the work is done: `overlay.steward`,
`overlay.pods`, `overlay.authorities`, `overlay.inviting`, `overlay.offline`, `overlay.certifying`,
`overlay.conflict`, `overlay.handover`. A request that raises has changed nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from overlay.attachment import NOTHING_SAID, Attachment
from overlay.audit import Finding, audit
from overlay.authorities import Authorities
from overlay.certifying import Certifier
from overlay.crossing import told
from overlay.effects import Effect, Persist, SendControl
from overlay.errors import RefusedError
from overlay.handover import Hands, Spent, gather
from overlay.inviting import Inviter
from overlay.keys import SigningKey
from overlay.manners import Manners
from overlay.offline import Signer
from overlay.parts import Parts
from overlay.pods import CLI, PodKeeper
from overlay.steward import Steward
from overlay.types import Address, Endpoint, Entropy, NodeId, Prefix
from overlay.views import AuthorityView, PodView, Problem, ReservationView, TokenView
from overlay.wire.certificate import Certificate
from overlay.wire.control import encode
from overlay.wire.messages import Goodbye


class Requests:
    """The requests to one engine."""

    parts: Parts
    _steward: Steward
    _manners: Manners
    _certifier: Certifier

    def _serve(self, steward: Steward, entropy: Entropy, boot_id: str) -> None:
        """Take requests from now on; arguments as for `overlay.engine.Engine`."""
        self._steward, self._boot_id = steward, boot_id
        self._keeper = PodKeeper(steward, boot_id)
        self._inviter = Inviter(steward, entropy)
        self._signer = Signer(steward, entropy)
        self._authorities = Authorities(steward)

    def _settle(self, effects: Iterable[Effect], now: float) -> list[Effect]:
        """Execute the effects that one part has for another; return the rest, in order."""
        raise AssertionError("the engine has its own")

    def stop(self, now: float) -> list[Effect]:
        """Stop cleanly: tell the peers, keep name, blocks and pods."""
        goodbye = encode(Goodbye())
        up = [node for node, path in self.parts.peering.paths.items() if path.keypair is not None]
        effects: list[Effect] = [self._steward.persist()]
        return self._settle([*effects, *(SendControl(node, goodbye) for node in up)], now)

    def retire_lanes(self, now: float) -> list[Effect]:
        """Before a hand-over: peers are told that lane 0 alone receives; see `lanes_retired`."""
        return self._settle(self.parts.lanes.retire(now), now)

    def keep_lanes(self, now: float) -> list[Effect]:
        """There is no hand-over after `retire_lanes`."""
        return self._settle(self.parts.lanes.retire(now, retiring=False), now)

    @property
    def lanes_retired(self) -> bool:
        """Whether all peers know: other lanes can end without losing what is sent to them."""
        return self.parts.lanes.is_told

    def hand_over(self, now: float) -> bytes:
        """All that the next process of this node needs; this engine is spent then (StateError).

        To be called when everything that it wanted is done: nothing waits for the disk. The bytes
        are secret and good for one engine. Raises as `overlay.handover.gather`, and goes on then.
        """
        data = gather(self._hands(), now)
        for name in vars(self):
            setattr(self, name, Spent())
        return data

    def _hands(self) -> Hands:
        return Hands(self.parts, self._steward, self._manners, self._boot_id)

    def add_pod(
        self,
        name: str,
        netns: str,
        address: Address | None,
        now: float,
        *,
        owner: str = CLI,
        attachment: Attachment = NOTHING_SAID,
    ) -> tuple[PodView, list[Effect]]:
        """Give a pod its addresses and announce it; the caller attaches it to the kernel."""
        view, effects = self._keeper.add(name, netns, address, owner, now, attachment=attachment)
        return view, self._settle(effects, now)

    def seeks_block(self) -> bool:
        """Whether this node wants a block and has not got one yet."""
        return self.parts.seeker.seeking

    def own_pods(self) -> tuple[PodView, ...]:
        """The pods of this node, by name. Its cost does not grow with the cluster."""
        return self._keeper.own()

    def pod_of(self, container: str, interface: str) -> PodView | None:
        """The pod that a runtime knows under its container's id and interface; None if none."""
        return self._keeper.find(container, interface)

    def is_pair(self, address: Address, address6: Address) -> bool:
        """Whether both are addresses of one place for a pod, whoever has it."""
        plan = self.parts.plan
        block, host = plan.index_of(address), plan.host_of(address)
        found = plan.index_of(address6), plan.host_of(address6)
        return None not in found and found == (block, host)

    def check_ready(self, now: float) -> None:
        """Whether a pod could be added now; RefusedError says why not."""
        self._keeper.check_ready(now)

    def reserve(
        self, owner: str, address: Address | None, now: float
    ) -> tuple[ReservationView, list[Effect]]:
        """Hold an address for an owner; see `overlay.tenants`."""
        view, effects = self._keeper.reserve(owner, address, now)
        return view, self._settle(effects, now)

    def release_reserved(
        self, owner: str, address: Address, now: float
    ) -> tuple[bool, list[Effect]]:
        """End a reservation; whether there was one of this owner's."""
        released, effects = self._keeper.release_reserved(owner, address, now)
        return released, self._settle(effects, now)

    def reserved(self) -> tuple[ReservationView, ...]:
        """Every reservation of this node, by address."""
        return self._keeper.reserved()

    def remove_pod(self, name: str, now: float) -> tuple[PodView, list[Effect]]:
        """Take a pod's addresses back and announce it; the caller detaches it."""
        view, effects = self._keeper.remove(name, now)
        return view, self._settle(effects, now)

    def release_lost(
        self, present: Collection[str], now: float, *, at_start: bool = False
    ) -> list[Effect]:
        """Take back the addresses of pods that are gone; `present`: whose namespace exists."""
        lost = self._keeper.lost(present)
        return self._settle(self._keeper.release(lost, now, at_start=at_start), now)

    def freed_at_start(self) -> Problem | None:
        """Pods that were gone when the node started, for whoever looks; None if there are none."""
        return self._keeper.notice()

    def audit(self, present: Collection[str], now: float) -> tuple[Finding, ...]:
        """What of addresses and blocks is not as it should be; changes nothing."""
        standing, told = self._steward.conflict.standing, self._steward.told
        return audit(self.parts, standing, self._keeper.lost(present), now, told=told)

    def claim(self, now: float) -> list[Effect]:
        """The operator says: this is the only machine with this identity."""
        return self._settle(self._steward.claim(now), now)

    def mint_token(
        self, ttl: float, now: float, routes: tuple[Prefix, ...] = ()
    ) -> tuple[str, list[Effect]]:
        """A join token, as text, and what must be stored before it is shown."""
        return self._inviter.mint(ttl, now, routes)

    def tokens(self, now: float) -> tuple[TokenView, ...]:
        """All join tokens that are remembered, without their secrets, the oldest first."""
        return self._inviter.views(now)

    def revoke_token(self, token: str, now: float) -> tuple[TokenView, list[Effect]]:
        """Revoke a join token; what it was before, and what must be stored before that is said."""
        return self._inviter.revoke(token, now)

    def sign_request(
        self,
        request: str,
        now: float,
        *,
        lifetime: float | None = None,
        routes: tuple[Prefix, ...] | None = None,
    ) -> tuple[str, list[Effect]]:
        """The certificate for a request that came by hand; see `overlay.offline.Signer.sign`."""
        return self._signer.sign(request, now, lifetime=lifetime, routes=routes)

    def certificate(self, name: str | None) -> Certificate:
        """The certificate in use here, or the one in the record of the node called `name`.

        Raises:
            RefusedError: `no-such-node`. Nothing else.
        """
        identity, catalog = self._steward.identity, self.parts.catalog
        if name in (None, identity.name):
            return identity.certificate
        record = catalog.by_name(str(name))
        if record is None:
            why, fix = f"no node {name} is known", "see muslin get nodes for the names"
            raise RefusedError("no-such-node", why, fix)
        return record.certificate

    def install_certificate(self, certificate: bytes, now: float) -> list[Effect]:
        """Use a certificate that the operator has for this node; `certificate` is encoded."""
        return self._settle(self._certifier.install(certificate, now), now)

    def fingerprint(self) -> bytes:
        """What names the cluster's authorities to people, 16 bytes."""
        return self.parts.catalog.judge.trust.fingerprint

    def authorities(self) -> tuple[AuthorityView, ...]:
        """Every authority there was, the first one first."""
        return self._authorities.views()

    def install_authority(self, key: bytes, now: float) -> list[Effect]:
        """Trust another authority, by its public key; see `overlay.authorities`."""
        return self._settle(self._authorities.install(key, now), now)

    def use_authority(self, key: bytes, now: float) -> list[Effect]:
        """Have new certificates signed by this authority, and the present ones renewed."""
        return self._settle(self._authorities.use(key, now), now)

    def remove_authority(self, key: bytes, now: float, *, force: bool = False) -> list[Effect]:
        """Trust an authority no more, for ever; certificates by it are void from then on."""
        return self._settle(self._authorities.remove(key, now, force=force), now)

    def hold_authority_key(self, key: SigningKey, now: float) -> list[Effect]:
        """Sign with this private key, too, which the daemon has stored; others hear of it."""
        self.parts.hold(key)
        return self._settle(self._steward.tidy(now), now)

    def leave(self, now: float) -> list[Effect]:
        """Hand all blocks back and tell the others; `Left` follows when they know or time is up."""
        return self._settle(self._steward.leave(now), now)

    def remove(self, name: str, now: float, *, force: bool = False) -> list[Effect]:
        """Declare a node dead for ever, with the authority's key."""
        return self._settle(self._steward.remove(name, now, force=force), now)

    def on_endpoints(self, endpoints: tuple[Endpoint, ...], now: float) -> list[Effect]:
        """This machine's underlay addresses changed."""
        return self._settle(self._steward.on_endpoints(endpoints, now), now)

    def on_routes(self, routes: tuple[Prefix, ...], now: float) -> list[Effect]:
        """Outside prefixes that this node is to advertise, as far as its certificate allows."""
        return self._settle(self._steward.on_routes(routes, now), now)

    def on_crossed(self, crossed: tuple[Prefix, ...], now: float) -> list[Effect]:
        """What this machine reaches without the overlay, of the cluster's ranges."""
        return self._settle(self._steward.on_crossed(told(crossed), now), now)

    def on_ways(self, ways: Iterable[tuple[Prefix, bool]], now: float) -> list[Effect]:
        """Routes of this machine lead underlay addresses into the TUN; see `Outside.follow`."""
        if not self.parts.outside.follow(ways):
            return []
        return self._settle(self.parts.peering.on_ways_changed(now), now)

    def on_own_addresses(self, held: Collection[Prefix]) -> None:
        """What this machine takes for its own changed; nothing: it is not known."""
        self.parts.hostports.follow(held)

    def on_underlay_mtu(self, largest: int, now: float) -> list[Effect]:
        """The largest packet that this machine's links carry changed, in bytes."""
        return self._settle(self.parts.peering.mtus.on_underlay_mtu(largest, now), now)

    def on_too_big(self, endpoint: Endpoint, now: float) -> list[Effect]:
        """The kernel refused datagrams to `endpoint` as larger than the interface's MTU."""
        return self._settle(self.parts.peering.mtus.on_too_big(endpoint, now), now)

    def on_lane(self, lane: int, report: bytes | None, now: float) -> list[Effect]:
        """One of our other lanes says something; None: its process is gone. See `Director`."""
        return self._settle(self.parts.lanes.on_lane(lane, report, now), now)

    def on_clock(self, epoch: float) -> None:
        """The wall clock was set: it is `epoch` at monotonic zero, in Unix seconds, from now on.

        Certificates, tokens and the ages of pods follow; no timer does, so nobody dies of it.
        """
        self.parts.wall.epoch = epoch

    def on_persist_failed(self, lost: Sequence[Persist], why: str, now: float) -> list[Effect]:
        """One of `lost` failed, others stood behind it: announce nothing until all are stored."""
        return self._steward.on_persist_failed(lost, why, now)

    def on_renewed(self, certificate: bytes, now: float) -> list[Effect]:
        """This node's new certificate is stored (`Renewed`)."""
        return self._settle(self._certifier.on_renewed(certificate, now), now)

    def probe(self, node: NodeId, token: int, now: float) -> list[Effect]:
        """Probe a member; `ProbeAnswered(node, token, rtt)` follows, or nothing.

        Raises:
            StateError: `node` is no member. Nothing else.
        """
        return self._settle(self.parts.gossip.probe(node, token, now), now)

    def say(self, node: NodeId, message: bytes, now: float) -> list[Effect]:
        """Say what the daemon has to say to a member: an encoded control message."""
        return self._settle([SendControl(node, message)], now)
