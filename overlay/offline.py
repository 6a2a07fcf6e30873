"""Certificates without a network: what is signed for a request, and who believes it.

    request (text) --checks--> certificate, stored --> grant, signed --> sealed to the static key
                                                                                |
                 node <--checks-- grant, verified <-- opened with the static key

Sealed means one message of Noise N: an ephemeral key that nobody keeps, and what only the owner of
the static key can open. So the line may travel over anything, and anybody may see it. Who sent
it, the message does not say; the authority's signature inside does.

A machine that is new knows no authority yet. Whoever has seen its request can make a certificate
for it, of a cluster of his own. So it must be told the *fingerprint* of its authorities by another
way than the certificate takes, and it takes nothing without: not from the line itself, which would
vouch for itself, and not after a question that people answer with yes.

References:
    The Noise Protocol Framework, revision 34, sections 7.4 (one-way patterns) and 7.7 (what they
    promise: no forward secrecy for the recipient, no word on the sender).
    RFC 7030, section 3.6.2: a new client and a trust anchor it has no way to know yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from overlay.admission import Registrar
from overlay.catalog.outside import check_consent
from overlay.catalog.records import NodeRecord
from overlay.catalog.trust import Trust, continued_trust, pinned_trust, stored_trust
from overlay.effects import Effect, Report
from overlay.errors import AuthError, ConfigError, RefusedError, WireError
from overlay.keys import KEY_SIZE, StaticKey
from overlay.session.noise import ONE_WAY, Handshake
from overlay.steward import Steward
from overlay.types import Entropy, NodeId, Prefix
from overlay.validity import LONGEST_DAYS
from overlay.wire.authority import AUTHORITIES_KEY
from overlay.wire.cluster import Cluster
from overlay.wire.items import Item
from overlay.wire.offline import GRANT_LINE, CertificateRequest, Grant

LONGEST_LIFETIME: Final = LONGEST_DAYS * 86_400.0

GRANT_ITEMS_SIZE: Final = 1_200
"""Bytes of items of other nodes than the signing one, so that most lines have fewer than the 4,096
characters that a terminal takes at once."""

_PROLOGUE: Final = b"muslin certificate 1"
_AGAIN: Final = "make another with muslin cert request"


def seal(grant: Grant, static: bytes, entropy: Entropy) -> str:
    """The line that only the owner of `static` can read.

    Raises:
        AuthError: `static` is of low order. Nothing else.
    """
    handshake = Handshake(ONE_WAY, None, prologue=_PROLOGUE, remote_static=static)
    return GRANT_LINE.write(handshake.write(grant.encode(), entropy))


def unseal(text: str, static: StaticKey) -> Grant:
    """The grant in a line. Whose it is and whether it may be believed says `check_grant`.

    Raises:
        ConfigError: not such a line, damaged, or sealed to another key. Nothing else.
    """
    message = GRANT_LINE.read_untrusted(text)
    handshake = Handshake(ONE_WAY, static, prologue=_PROLOGUE)
    try:
        opened = handshake.read_untrusted(message)
    except (AuthError, WireError) as error:
        raise ConfigError(
            f"this certificate is for another machine's request: {_AGAIN} here"
        ) from error
    try:
        return Grant.decode_untrusted(opened)
    except WireError as error:
        raise ConfigError(f"this certificate makes no sense ({error}): {_AGAIN}") from error


def check_grant(
    grant: Grant,
    request: CertificateRequest,
    *,
    pinned: bytes | None,
    cluster: Cluster | None,
    wall: float,
    held: Iterable[Item] = (),
) -> None:
    """Whether to believe a grant.

    Args:
        grant: from `unseal`.
        request: what was asked for.
        pinned: the authorities' fingerprint, from the operator; needed if `cluster` is not known.
        cluster: the cluster that the machine is a member of; None if it is new.
        wall: Unix seconds.
        held: items that a member has stored, the list of authorities among them.

    Raises:
        RefusedError: `wrong-authority`, `wrong-cluster`, `wrong-request`, `bad-certificate`.
            Nothing else.
    """
    own = (request.node, request.static, request.name)
    certificate = grant.certificate
    try:
        grant.verify()
        _authorities(grant, held, pinned, cluster).check_certificate(certificate, wall)
    except AuthError as error:
        raise RefusedError("bad-certificate", str(error), _AGAIN) from error
    if (certificate.node, certificate.static, certificate.name) != own:
        why = "this certificate is not for the keys and the name of this machine"
        raise RefusedError("wrong-request", why, _AGAIN)
    if cluster is None and not grant.psk:
        why = "this certificate is for a node that is a member already, and this one is new"
        raise RefusedError("wrong-request", why, _AGAIN)


def _authorities(
    grant: Grant, held: Iterable[Item], pinned: bytes | None, cluster: Cluster | None
) -> Trust:
    """The list of authorities to judge a grant by, whose own signatures hold.

    Raises:
        RefusedError: `wrong-authority`, `wrong-cluster`. Nothing else.
    """
    if cluster is not None and grant.cluster != cluster:
        why = "this certificate is for another cluster than this node's"
        raise RefusedError("wrong-cluster", why, "have the request signed by this cluster")
    try:
        if cluster is None:
            return pinned_trust(grant.items, grant.cluster, pinned or b"")
        # Who was off for long has missed how the list went on.
        trust = continued_trust(stored_trust(held, cluster), grant.items)
        if pinned is None or pinned in trust.fingerprints():
            return trust
        raise AuthError("another list of authorities")
    except (AuthError, WireError) as error:
        why = "this certificate is not from the authority with that fingerprint"
        fix = "compare with muslin cert show on the authority's node; trust no other source"
        raise RefusedError("wrong-authority", why, fix) from error


def knows_list(grant: Grant, held: Iterable[Item]) -> bool:
    """Whether a member that holds these items knows the authorities that a checked grant tells."""
    theirs = grant.authorities
    return theirs is None or theirs.version <= len(stored_trust(held, grant.cluster).links)


def items_with(grant: Grant, held: tuple[Item, ...]) -> tuple[Item, ...]:
    """What a member holds, and what is newer in a checked grant if its list of authorities is.

    By that list, the records that the member holds may be worth nothing: the grant has others.
    """
    if knows_list(grant, held):
        return held
    items = {item.key: item for item in held}
    for item in grant.items:
        if item.key not in items or item.version > items[item.key].version:
            items[item.key] = item
    return tuple(items.values())


class Signer:
    """Signs requests on the node that holds the authority's key.

    Args:
        steward: looks after what the node holds.
        entropy: makes the ephemeral keys of sealed lines.
    """

    def __init__(self, steward: Steward, entropy: Entropy) -> None:
        self._steward = steward
        self._parts = steward.parts
        self._entropy = entropy

    def sign(
        self,
        text: str,
        now: float,
        *,
        lifetime: float | None = None,
        routes: tuple[Prefix, ...] | None = None,
    ) -> tuple[str, list[Effect]]:
        """The sealed line for a request, and what must be stored before it is shown.

        Args:
            text: the request.
            now: monotonic seconds.
            lifetime: seconds, the registrar's unless given.
            routes: outside routes that the node may advertise; None: those it may already.

        Raises:
            ConfigError: the text is no request, or routes or lifetime will not do.
            RefusedError: `not-authority`, `not-stored`, `identity-conflict`, `wrong-cluster`,
                `not-a-member`, `node-removed`, `node-left`, `no-endpoint`, `bad-key`, and those of
                `Registrar.certify`. Nothing else.
        """
        self._steward.check_may_give()
        registrar = self._registrar()
        request = CertificateRequest.parse(text)
        self._check(request, registrar)
        record, wall = self._record(request.node), self._parts.wall.at(now)
        old = None if record is None else record.certificate
        if routes is None:
            routes = () if old is None else old.routes
        routes = check_consent(routes, self._steward.cluster)
        if old is not None and lifetime is not None and wall + lifetime <= old.not_after:
            why = f"the certificate that {request.name} has lasts longer, and would be kept"
            raise ConfigError(why, "--days")
        items = self._items_for_member(request.node) if request.cluster else self._items()
        probe = StaticKey(self._entropy(KEY_SIZE))
        try:
            probe.exchange(request.static)  # nothing may fail behind the signature
        except AuthError as error:
            raise RefusedError("bad-key", "nothing can be sealed to the key in it") from error
        certificate = registrar.certify(
            request,
            routes=routes,
            lifetime=lifetime,
            gone=self._steward.gone_names(registrar),
            wall=wall,
            old=old,
        )
        grant = registrar.grant(certificate, items, member=bool(request.cluster))
        report = Report("node.certified", {"node": request.name})
        line = seal(grant, request.static, self._entropy)
        return line, [self._steward.persist(), report]

    def _check(self, request: CertificateRequest, registrar: Registrar) -> None:
        catalog, name = self._parts.catalog, request.name
        record, other = self._record(request.node), catalog.by_name(name)
        if request.node in catalog.removed:
            raise RefusedError("node-removed", "a node with these keys was removed")
        if record is not None and record.left:
            fix = "let it make new keys: muslin cert request in a new folder"
            raise RefusedError("node-left", "a node with these keys has left the cluster", fix)
        if request.cluster and request.cluster != self._steward.cluster.id:
            why = "the request is of a member of another cluster"
            raise RefusedError("wrong-cluster", why, "have it signed where that one was founded")
        known = record is not None and record.name == name
        if request.cluster and not known and registrar.holder(name) != request.node:
            why = f"no node {name} with these keys is known here"
            raise RefusedError("not-a-member", why, "see muslin get nodes for the names")
        # Another authority may have certified it, of which this node's own list says nothing.
        if other is not None and not other.left and other.node != request.node:
            why = f"a node named {name} exists in the cluster"
            fix = "let it ask for another: muslin cert request --name NAME"
            raise RefusedError("name-taken", why, fix)

    def _record(self, node: NodeId) -> NodeRecord | None:
        """The newest of a node, also if its certificate lost its worth with its authority."""
        catalog = self._parts.catalog
        return catalog.nodes.get(node) or catalog.void.get(node)

    def _items_for_member(self, node: NodeId) -> tuple[Item, ...]:
        """The list, and records if the node may hold none that is worth anything by that list.

        It may have been off while its own authority was removed, and others' records were renewed.
        """
        item = self._parts.store.get(AUTHORITIES_KEY)
        if item is None or node in self._parts.catalog.nodes:
            return () if item is None else (item,)
        return self._steward.items_for_joiner(GRANT_ITEMS_SIZE)

    def _items(self) -> tuple[Item, ...]:
        items = self._steward.items_for_joiner(GRANT_ITEMS_SIZE)
        nodes = self._parts.catalog.nodes
        records = [nodes[NodeId(item.key[1:])] for item in items if item.key[1:] in nodes]
        if not any(record.endpoints for record in records):
            what = "no underlay address of any member is known, to put into the certificate"
            raise RefusedError("no-endpoint", what, "run muslin up here once, or set advertise")
        return items

    def _registrar(self) -> Registrar:
        if self._parts.registrar is None:
            fix = "sign it where the key is, at first where muslin init ran"
            what = "this node does not hold the authority's key"
            raise RefusedError("not-authority", what, fix)
        return self._parts.registrar
