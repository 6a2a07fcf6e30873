"""Admitting nodes: the side of a join that holds the authority's key.

    muslin token        mint: id, secret, expiry, stored            --> one line of text
    joiner's handshake  the secret of that id proves itself         <-- `TokenBook.secret`
    JoinRequest         name, keys, signature                       --> certificate, or a refusal

A token admits one node. The same node asking again, because the answer was lost, gets the same
certificate again; any other is refused. So is a name that another living node has.

Error contract: a refused request changes nothing. What changes must be stored before the answer is
sent; `Decision.changed` says so.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from overlay.errors import ConfigError, RefusedError
from overlay.keys import KEY_SIZE, SigningKey, verify
from overlay.types import Endpoint, Entropy, NodeId
from overlay.wire.certificate import (
    CERTIFICATE_MAX,
    Certificate,
    Identity,
    check_name,
    issue_certificate,
)
from overlay.wire.cluster import Cluster
from overlay.wire.items import Item
from overlay.wire.messages import JoinGrant, JoinRequest, Refusal
from overlay.wire.packing import MAX_TIME, Fields, pack
from overlay.wire.token import TOKEN_ID_SIZE, TOKEN_SECRET_SIZE, JoinToken

JOIN_CONTEXT: Final = "join"
"""Signature context of a join request."""

CERTIFICATE_LIFETIME: Final = 365 * 86_400
"""Seconds. A year: nothing renews certificates by itself yet, and weeks would be a trap."""

BACKDATED: Final = 3600
"""Certificates are valid from this long before they are made: clocks of members differ."""

REMEMBERED_AFTER: Final = 86_400
"""Seconds a token is remembered after it expired, to say `token-expired` and to answer a late
repetition of a granted request."""

MAX_TOKENS: Final = 10_000

_FORMAT: Final = 1
_BOOK_MAX: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class MintedToken:
    """What the authority remembers of one token."""

    id: bytes
    secret: bytes = field(repr=False)
    expires: int
    """Unix seconds."""
    used_by: NodeId | None = None
    certificate: bytes = b""
    """What its user got, to give it again."""


class TokenBook:
    """All tokens that may still matter."""

    def __init__(self, tokens: Sequence[MintedToken] = ()) -> None:
        self._tokens = {token.id: token for token in tokens}

    def mint(
        self,
        ttl: float,
        *,
        member: Identity,
        cluster: Cluster,
        endpoints: tuple[Endpoint, ...],
        entropy: Entropy,
        wall: float,
    ) -> JoinToken:
        """A fresh token that is good for `ttl` seconds. Store the book before showing it.

        Raises:
            RefusedError: `too-many-tokens`. Nothing else.
        """
        self._purge(wall)
        if len(self._tokens) >= MAX_TOKENS:
            fix = "wait until some expire, and mint them with a shorter --ttl"
            raise RefusedError("too-many-tokens", f"{MAX_TOKENS} tokens are remembered", fix)
        expires = int(min(wall + ttl, MAX_TIME))
        minted = MintedToken(entropy(TOKEN_ID_SIZE), entropy(TOKEN_SECRET_SIZE), expires)
        self._tokens[minted.id] = minted
        return JoinToken(
            id=minted.id,
            secret=minted.secret,
            static=member.static.public,
            member=member.node,
            authority_fingerprint=cluster.authority_fingerprint,
            endpoints=endpoints,
            expires=minted.expires,
        )

    def secret(self, token: bytes, wall: float) -> bytes | None:
        """The secret of a remembered token: a used or expired one is told so, encrypted."""
        self._purge(wall)
        minted = self._tokens.get(token)
        return minted.secret if minted else None

    def get(self, token: bytes) -> MintedToken | None:
        """What is remembered of a token."""
        return self._tokens.get(token)

    def use(self, token: bytes, node: NodeId, certificate: bytes) -> None:
        """Note who used a token, and what for."""
        self._tokens[token] = replace(self._tokens[token], used_by=node, certificate=certificate)

    def _purge(self, wall: float) -> None:
        oldest = wall - REMEMBERED_AFTER
        self._tokens = {
            name: minted for name, minted in self._tokens.items() if minted.expires >= oldest
        }

    def encode(self) -> bytes:
        """The stored bytes."""
        tokens = [
            [minted.id, minted.secret, minted.expires, minted.used_by or b"", minted.certificate]
            for minted in self._tokens.values()
        ]
        return pack([_FORMAT, tokens])

    @classmethod
    def decode(cls, stored: bytes) -> TokenBook:
        """Read what `encode` wrote; nothing stored is an empty book.

        Raises:
            WireError: damaged. Nothing else.
        """
        if not stored:
            return cls()
        book = Fields.unpack_untrusted(stored, _BOOK_MAX, "tokens", count=2, version=_FORMAT)
        return cls([_minted(value) for value in book.sequence(1, MAX_TOKENS)])


def _minted(value: object) -> MintedToken:
    fields = Fields(value, "token", 5)
    used_by = fields.bytes(3, limit=KEY_SIZE)
    return MintedToken(
        id=fields.bytes(0, TOKEN_ID_SIZE),
        secret=fields.bytes(1, TOKEN_SECRET_SIZE),
        expires=fields.integer(2, high=MAX_TIME),
        used_by=NodeId(used_by) if used_by else None,
        certificate=fields.bytes(4, limit=CERTIFICATE_MAX),
    )


class Decision(NamedTuple):
    """The answer to a join request."""

    answer: JoinGrant | Refusal
    changed: bool


class Registrar:
    """Certifies nodes.

    Args:
        authority: the authority's key.
        cluster: what joiners become members of.
        psk: the cluster's pre-shared key, 32 bytes.
        tokens: the stored token book.
        names: the stored names and serial, from `encode`.
    """

    def __init__(
        self, authority: SigningKey, *, cluster: Cluster, psk: bytes, tokens: bytes, names: bytes
    ) -> None:
        self._authority = authority
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
        if minted.used_by == joiner:
            return minted.certificate, False
        if minted.used_by is not None:
            raise RefusedError("token-used", "this token has admitted a node already")
        if wall >= minted.expires:
            raise RefusedError("token-expired", "this token has expired")
        self._check_free(request.name, joiner, gone)
        certificate = self._issue(request, joiner, wall).encode()
        self._names[request.name] = joiner
        self.tokens.use(token, joiner, certificate)
        return certificate, True

    def _check_free(self, name: str, joiner: NodeId, gone: frozenset[str]) -> None:
        try:
            check_name(name)
        except ConfigError as error:
            raise RefusedError("bad-name", str(error)) from error
        holder = self._names.get(name)
        if holder is not None and holder != joiner and name not in gone:
            raise RefusedError("name-taken", f"a node named {name} exists in the cluster")

    def _issue(self, request: JoinRequest, joiner: NodeId, wall: float) -> Certificate:
        self._serial += 1
        return issue_certificate(
            self._authority,
            node=joiner,
            static=request.static,
            name=request.name,
            cluster=self._cluster.id,
            serial=self._serial,
            not_before=int(wall) - BACKDATED,
            not_after=int(wall) + CERTIFICATE_LIFETIME,
        )

    def holder(self, name: str) -> NodeId | None:
        """The node that `name` was last certified for; None if it never was."""
        return self._names.get(name)

    def holders(self) -> Iterator[tuple[str, NodeId]]:
        """Every name that was ever certified, with the node that bore it last."""
        return iter(self._names.items())

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
