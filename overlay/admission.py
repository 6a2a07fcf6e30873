"""Admitting nodes: the side of a join that holds the authority's key.

    joiner's handshake  the secret of its token proves itself       <-- `TokenBook.secret`
    JoinRequest         name, keys, signature                       --> certificate, or a refusal

    RenewRequest        in a session of a member                    --> certificate, or a refusal

A token admits one node. The same node asking again, because the answer was lost, gets the same
certificate again; any other is refused. So is a name that another living node has.

A member's certificate is renewed as it is: node, key, name and routes stay. One that asks again
gets the same again until that one is to be renewed, so no member has us sign and store more.

Error contract: a refused request changes nothing. What changes must be stored before the answer is
sent; `Decision.changed` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from overlay.config import CERTIFICATE_LIFETIME
from overlay.errors import ConfigError, RefusedError
from overlay.keys import KEY_SIZE, LOCKED, UNLOCK, SigningKey, verify
from overlay.tokens import TokenBook
from overlay.types import NodeId, Prefix
from overlay.validity import is_due, validity
from overlay.wire.certificate import Certificate, check_name, issue_certificate
from overlay.wire.cluster import Cluster
from overlay.wire.items import Item
from overlay.wire.messages import JoinGrant, JoinRequest, Refusal
from overlay.wire.offline import CertificateRequest, Grant
from overlay.wire.packing import MAX_TIME, Fields, pack

JOIN_CONTEXT: Final = "join"
"""Signature context of a join request."""

SERIAL_LEAP: Final = 1 << 32
"""A serial this much greater than any that was seen is nobody's count. Who has stolen the key of an
authority may have made it, to use up all serials there are, for good."""

_FORMAT: Final = 1
_BOOK_MAX: Final = 16 << 20


Renewable = Callable[[Certificate, float, Container[NodeId], NodeId], bool]

RENEWABLE: Final[Mapping[str, tuple[str, Renewable]]] = {
    "node-removed": (
        "this node was removed",
        lambda old, _wall, removed, _holder: old.node not in removed,
    ),
    "certificate-expired": (
        "its certificate has expired",
        lambda old, wall, _removed, _holder: wall < old.not_after,
    ),
    "name-taken": (
        "its name was given to another node",
        lambda old, _wall, _removed, holder: holder == old.node,
    ),
}
"""Codes of refusals to renew, what is said, and what must be true: of the certificate, the wall
time, who was removed, and who was last certified under its name."""


class Decision(NamedTuple):
    """The answer to a join request."""

    answer: JoinGrant | Refusal
    changed: bool


class Registrar:
    """Certifies nodes.

    Args:
        authority: the key that it signs with.
        cluster: what joiners become members of.
        psk: the cluster's pre-shared key, 32 bytes.
        tokens: the stored token book.
        names: the stored names and serial, from `encode`.
        lifetime: seconds that certificates live.

    Attributes:
        authority: the key that it signs with: of the authority in use.
    """

    def __init__(
        self,
        authority: SigningKey,
        *,
        cluster: Cluster,
        psk: bytes,
        tokens: bytes,
        names: bytes,
        lifetime: int = CERTIFICATE_LIFETIME,
    ) -> None:
        self.authority = authority
        self.lifetime = lifetime
        self._renewed: dict[NodeId, Certificate] = {}
        self._cluster = cluster
        self._psk = psk
        self.tokens = TokenBook.decode(tokens)
        self._names, self._serial = _decode_names(names)

    def encode(self) -> bytes:
        """Names and serial, to be stored."""
        return pack([_FORMAT, self._serial, [[name, self._names[name]] for name in self._names]])

    def on_join_request(
        self,
        request: JoinRequest,
        *,
        token: bytes,
        joiner: NodeId,
        items: tuple[Item, ...],
        gone: frozenset[str],
        wall: float,
        removed: Container[NodeId] = (),
    ) -> Decision:
        """Decide on a request that came in a session opened with `token`.

        Args:
            request: what the joiner wants.
            token: id of its token; the session proved that it knows the secret.
            joiner: the identity it claims; the request's signature proves it.
            items: records a new member starts with.
            gone: names of nodes that have left, or were removed: free again.
            wall: Unix seconds.
            removed: nodes that must not come back with the same keys.
        """
        try:
            certificate, changed = self._certify(
                request, token, joiner, gone=gone, removed=removed, wall=wall
            )
        except RefusedError as refused:
            return Decision(Refusal(request.request, refused.code, str(refused)), changed=False)
        grant = JoinGrant(
            request=request.request,
            certificate=certificate,
            cluster=self._cluster.encode(),
            psk=self._psk,
            items=items,
        )
        return Decision(grant, changed)

    def _certify(
        self,
        request: JoinRequest,
        token: bytes,
        joiner: NodeId,
        *,
        gone: frozenset[str],
        removed: Container[NodeId],
        wall: float,
    ) -> tuple[bytes, bool]:
        minted = self.tokens.get(token)
        if minted is None:
            raise RefusedError("token-unknown", "this token is not known any more")
        signed = join_signed_bytes(token, request.static, request.name)
        if not verify(joiner, JOIN_CONTEXT, signed, request.signature):
            raise RefusedError("bad-signature", "the request is not signed by who sent it")
        if joiner in removed:
            raise RefusedError("node-removed", "a node with these keys was removed")
        if minted.revoked:
            raise RefusedError("token-revoked", "this token was revoked")
        if minted.used_by == joiner:
            return minted.certificate, False
        if minted.used_by is not None:
            raise RefusedError("token-used", "this token has admitted a node already")
        if wall >= minted.expires:
            raise RefusedError("token-expired", "this token has expired")
        self._check_unlocked()
        self._check_free(request.name, joiner, gone)
        certificate = self._issue(
            joiner, request.static, request.name, wall=wall, routes=minted.routes
        ).encode()
        self._names[request.name] = joiner
        self.tokens.use(token, joiner, certificate)
        return certificate, True

    def _check_unlocked(self) -> None:
        if self.authority.is_locked:
            raise RefusedError("authority-locked", LOCKED, UNLOCK)

    def _check_free(self, name: str, joiner: NodeId, gone: frozenset[str]) -> None:
        try:
            check_name(name)
        except ConfigError as error:
            raise RefusedError("bad-name", str(error)) from error
        holder = self._names.get(name)
        if holder is not None and holder != joiner and name not in gone:
            raise RefusedError("name-taken", f"a node named {name} exists in the cluster")

    def certify(
        self,
        request: CertificateRequest,
        *,
        routes: tuple[Prefix, ...],
        lifetime: float | None,
        gone: frozenset[str],
        wall: float,
        old: Certificate | None = None,
    ) -> Certificate:
        """A certificate for a request that came by hand. Whether to sign was the operator's choice.

        Args:
            request: what it is for; its signature was checked.
            routes: outside routes that the node may advertise.
            lifetime: seconds; None: as long as others.
            gone: names of nodes that have left, or were removed: free again.
            wall: Unix seconds.
            old: the one that it takes the place of, and ends after, if there is one.

        Raises:
            RefusedError: `authority-locked`, `bad-name`, `name-taken`, `strange-serial`.
            ConfigError: not routes that a node may have. Nothing else.
        """
        self._check_unlocked()
        self._check_free(request.name, request.node, gone)
        certificate = self._issue(
            request.node,
            request.static,
            request.name,
            wall=wall,
            lifetime=lifetime,
            routes=routes,
            old=old,
        )
        self._names[request.name] = request.node
        return certificate

    def grant(self, certificate: Certificate, items: tuple[Item, ...], *, member: bool) -> Grant:
        """What travels with a certificate from `certify`, signed.

        Args:
            certificate: for whom.
            items: what a new node starts with.
            member: whether it is one already, and has the cluster's secret.
        """
        psk = b"" if member else self._psk
        return Grant(self._cluster, certificate, psk, items).signed(self.authority)

    def _issue(
        self,
        node: NodeId,
        static: bytes,
        name: str,
        *,
        wall: float,
        lifetime: float | None = None,
        routes: tuple[Prefix, ...] = (),
        old: Certificate | None = None,
    ) -> Certificate:
        """A new certificate; one that takes the place of `old` never ends before it.

        Raises:
            RefusedError: `strange-serial`.
            ConfigError: not routes that a node may have. Nothing else.
        """
        serial, until = (old.serial, old.not_after) if old else (0, 0)
        if serial > self._serial + SERIAL_LEAP:
            why = f"no authority counts to its certificate's serial, {serial}"
            raise RefusedError("strange-serial", why, "remove it: an authority's key is stolen")
        self._serial = max(self._serial, serial) + 1
        not_before, not_after = validity(wall, int(lifetime or self.lifetime))
        return issue_certificate(
            self.authority,
            node=node,
            static=static,
            name=name,
            cluster=self._cluster.id,
            serial=self._serial,
            not_before=not_before,
            not_after=min(max(not_after, until + 1), MAX_TIME),
            routes=routes,
        )

    def renew(
        self, old: Certificate, *, wall: float, removed: Container[NodeId] = ()
    ) -> tuple[Certificate, bool]:
        """A certificate that takes the place of a member's.

        Args:
            old: what its record shows: an authority that is trusted has signed it.
            wall: Unix seconds.
            removed: nodes that are members no more.

        Returns:
            The certificate, and whether something changed: it must be stored before it is given.

        Raises:
            RefusedError: `node-removed`, `certificate-expired`, `name-taken`, `not-due`,
                `authority-locked`, `strange-serial`. Nothing else.
        """
        holder = self._names.get(old.name, old.node)
        for code, (why, holds) in RENEWABLE.items():
            if not holds(old, wall, removed, holder):
                raise RefusedError(code, why)
        given = self._renewed.get(old.node)
        if given is not None and given.serial > old.serial and self._is_fresh(given, wall):
            return given, False
        if self._is_fresh(old, wall):
            raise RefusedError("not-due", "its certificate need not be renewed yet")
        self._check_unlocked()
        self._renewed = {n: one for n, one in self._renewed.items() if self._is_fresh(one, wall)}
        given = self._issue(old.node, old.static, old.name, wall=wall, routes=old.routes, old=old)
        self._renewed[old.node] = given
        self._names[old.name] = old.node
        return given, True

    def _is_fresh(self, certificate: Certificate, wall: float) -> bool:
        return not is_due(certificate, self.authority.public, wall)

    def holder(self, name: str) -> NodeId | None:
        """The node that `name` was last certified for; None if it never was."""
        return self._names.get(name)

    def holders(self) -> Iterator[tuple[str, NodeId]]:
        """Every name that was ever certified, with the node that bore it last."""
        return iter(self._names.items())

    @property
    def issuer(self) -> bytes:
        """Key of the authority that it signs for, 32 bytes."""
        return self.authority.public

    def heed(self, certificates: Iterable[Certificate]) -> None:
        """Other authorities have made these: names are taken, serials go on behind theirs."""
        for one in certificates:
            self._names.setdefault(one.name, one.node)
            if one.serial <= self._serial + SERIAL_LEAP:
                self._serial = max(self._serial, one.serial)

    def reserve(self, name: str, node: NodeId) -> None:
        """`name` is taken by `node`: a certificate that was made elsewhere, such as the first."""
        self._names.setdefault(name, node)


def join_signed_bytes(token: bytes, static: bytes, name: str) -> bytes:
    """What a join request's signature covers: token id 16 || static key 32 || name."""
    return token + static + name.encode()


def _decode_names(stored: bytes) -> tuple[dict[str, NodeId], int]:
    if not stored:
        return {}, 1  # serial 1 is the founding node's
    fields = Fields.unpack_untrusted(stored, _BOOK_MAX, "names", count=3, version=_FORMAT)
    pairs = [Fields(pair, "name", 2) for pair in fields.sequence(2, 1 << 20)]
    names = {pair.text(0, 63): NodeId(pair.bytes(1, KEY_SIZE)) for pair in pairs}
    return names, fields.integer(1)
