"""Certificates that are renewed: what the engine does with requests, grants and its own.

    a member asks  --> certified by `overlay.admission.Registrar` --> stored --> granted
    a grant comes  --> checked by `overlay.renewal` --> stored --> used: record, handshakes
    our own is due --> we certify ourselves, or ask

The authority's node certifies members as their records show them. A record proves that an authority
has certified that node, key, name and these routes, and that the node itself shows it; so nothing
is to be had here that was not granted before.
"""

from __future__ import annotations

from overlay.conflict import Conflict
from overlay.effects import Effect, Renewed, Report, SendControl
from overlay.errors import AuthError, RefusedError, WireError
from overlay.parts import Parts
from overlay.renewal import PASSING
from overlay.steward import Steward
from overlay.types import NodeId
from overlay.wire.certificate import Certificate, Identity
from overlay.wire.control import encode
from overlay.wire.messages import Message, Refusal, RenewGrant, RenewRequest


class Certifier:
    """Renews certificates for one engine.

    Args:
        parts: the machines of the node.
        steward: stores and announces.
        identity: who the node is; its certificate changes here.
    """

    def __init__(self, parts: Parts, steward: Steward, identity: Identity) -> None:
        self._parts = parts
        self._steward = steward
        self._identity = identity
        self._renewal = parts.renewal

    @property
    def _conflict(self) -> Conflict:
        return self._steward.conflict

    def on_message(self, node: NodeId, message: Message, now: float) -> list[Effect] | None:
        """A member asks for a certificate, or grants one; None for what is neither."""
        match message:
            case RenewRequest():
                return self._on_request(node, message, now)
            case RenewGrant():
                certificate, effects = self._renewal.on_grant(node, message, now)
                return effects if certificate is None else self._take(certificate)
        return None

    def on_refusal(self, node: NodeId, refusal: Refusal) -> list[Effect]:
        """A member declined something; empty if that was not a certificate."""
        return self._renewal.on_refusal(node, refusal)

    # -- for others ----------------------------------------------------------------------------

    def _on_request(self, node: NodeId, request: RenewRequest, now: float) -> list[Effect]:
        record = self._parts.catalog.nodes.get(node)
        try:
            if record is None:
                raise RefusedError("no-record", "this node has not heard of its record yet")
            if record.left:
                raise RefusedError("node-left", "this node has left the cluster")
            other = self._parts.catalog.by_name(record.name)
            if other is not None and other.node != node and not other.left:
                # Another authority may have certified it, of which our own list says nothing.
                raise RefusedError("name-taken", f"a newer node named {record.name} exists")
            certificate, changed = self._certify(record.certificate, now)
        except RefusedError as refused:
            answer = Refusal(request.request, refused.code, str(refused))
            return [SendControl(node, encode(answer))]
        grant = SendControl(node, encode(RenewGrant(request.request, certificate.encode())))
        if not changed:
            return [grant]
        report = Report("certificate.granted", {"peer": certificate.name})
        return [self._steward.persist(), report, grant]

    def _certify(self, old: Certificate, now: float) -> tuple[Certificate, bool]:
        """A certificate in place of `old`, and whether it must be stored first.

        Raises:
            RefusedError: `not-authority`, `not-stored`, `just-started`, `identity-conflict`, or a
                code of `Registrar.renew`. Nothing else.
        """
        registrar = self._parts.registrar
        if registrar is None:
            raise RefusedError("not-authority", "this node does not hold the authority's key")
        if self._steward.not_stored:
            raise RefusedError("not-stored", "this node cannot store anything at the moment")
        self._conflict.check_met(now)  # its serials may be older than it knows
        wall = self._parts.wall.at(now)
        return registrar.renew(old, wall=wall, removed=self._parts.catalog.removed)

    # -- our own -------------------------------------------------------------------------------

    def _take(self, certificate: Certificate) -> list[Effect]:
        """Store it; use it when that is done. If it cannot be stored, it is asked for again."""
        self._identity.keep(certificate)
        return [self._steward.persist(), Renewed(self._identity.kept)]

    def install(self, data: bytes, now: float) -> list[Effect]:
        """The operator has a certificate for this node: store it, then use it.

        The one in use is fine, and changes nothing.

        Args:
            data: the encoded certificate.
            now: monotonic seconds.

        Raises:
            RefusedError: `not-stored`, `node-removed`, `node-left`, `bad-certificate`. Nothing
                else.
        """
        self._steward.check_storable()
        if self._parts.holdings.ended is not None:
            self._parts.holdings.ended.refuse()
        if data == self._identity.certificate.encode():
            return []
        try:
            return self._take(self._renewal.by_hand(data, now))
        except (WireError, AuthError) as error:
            why = f"the certificate cannot take the place of the present one: {error}"
            fix = "have a new request signed: muslin cert request"
            raise RefusedError("bad-certificate", why, fix) from error

    def on_renewed(self, certificate: bytes, now: float) -> list[Effect]:
        """That certificate is stored: show it in handshakes and in the record."""
        identity = self._identity
        if certificate != identity.kept or certificate == identity.certificate.encode():
            return []  # another one came while this was written, or this one came twice
        identity.use_kept()
        self._renewal.on_look(now)
        until = {"until": identity.certificate.not_after}
        return [Report("certificate.renewed", until), *self._steward.own_changed(now)]

    def next_deadline(self) -> float | None:
        """When `on_deadline` has something to do next."""
        return self._renewal.next_deadline()

    def on_deadline(self, now: float) -> list[Effect]:
        """See whether the certificate is due; ask, or certify ourselves, if it is time to."""
        if self._parts.holdings.ended is None and not self._parts.holdings.left:
            self._renewal.on_look(now)
        registrar = self._parts.registrar
        if not self._renewal.is_due(now):
            return []
        if registrar is None or registrar.issuer != self._parts.issuer():
            return self._renewal.on_deadline(now)
        self._renewal.wait(now)
        try:
            certificate, _ = self._certify(self._identity.certificate, now)
        except RefusedError as refused:
            self._renewal.why, self._renewal.refused = str(refused), refused.code not in PASSING
            return []
        return self._take(certificate)
