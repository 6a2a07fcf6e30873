"""The book of join tokens: what the authority's node remembers of each.

    muslin token        mint: id, secret, expiry, stored            --> one line of text
    joiner's handshake  `secret`: what proves itself there
    a granted request   `use`: by whom, and with which certificate, to give it again
    muslin token list   `views`: all of them, without the secrets
           ... revoke   `revoke`: it admits nobody from now on; whom it has admitted stays

What changes must be stored before anybody is told. The certificates are made in
`overlay.admission`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from overlay.errors import RefusedError
from overlay.keys import KEY_SIZE
from overlay.types import Endpoint, Entropy, NodeId, Prefix
from overlay.views import TokenState, TokenView
from overlay.wire.certificate import CERTIFICATE_MAX, Certificate, Identity
from overlay.wire.packing import MAX_TIME, Fields, pack
from overlay.wire.routes import pack_routes, routes_untrusted
from overlay.wire.token import TOKEN_ID_SIZE, TOKEN_SECRET_SIZE, JoinToken

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
    made: int
    """Unix seconds."""
    used_by: NodeId | None = None
    certificate: bytes = b""
    """What its user got, to give it again."""
    revoked: bool = False
    routes: tuple[Prefix, ...] = ()
    """Outside routes that the node it admits may advertise."""

    def view(self, wall: float) -> TokenView:
        """What people are shown of it at `wall` (Unix seconds)."""
        name = Certificate.decode_untrusted(self.certificate).name if self.certificate else ""
        state = self._state(wall)
        return TokenView(self.id, state, self.expires, self.made, name, self.routes)

    def _state(self, wall: float) -> TokenState:
        if self.revoked:
            return TokenState.REVOKED
        if self.used_by is not None:
            return TokenState.USED
        return TokenState.EXPIRED if wall >= self.expires else TokenState.UNUSED


class TokenBook:
    """All tokens that may still matter."""

    def __init__(self, tokens: Sequence[MintedToken] = ()) -> None:
        self._tokens = {token.id: token for token in tokens}

    def mint(
        self,
        ttl: float,
        *,
        member: Identity,
        pinned: bytes,
        endpoints: tuple[Endpoint, ...],
        entropy: Entropy,
        wall: float,
        routes: tuple[Prefix, ...] = (),
    ) -> JoinToken:
        """A fresh token that is good for `ttl` seconds. Store the book before showing it.

        `pinned` is the fingerprint of the cluster's authorities, 16 bytes. `routes`, as
        `sort_routes` orders them, go into the certificate of whom it admits.

        Raises:
            RefusedError: `too-many-tokens`. Nothing else.
        """
        self._purge(wall)
        if len(self._tokens) >= MAX_TOKENS:
            fix = "wait until some expire, and mint them with a shorter --ttl"
            raise RefusedError("too-many-tokens", f"{MAX_TOKENS} tokens are remembered", fix)
        expires = int(min(wall + ttl, MAX_TIME))
        minted = MintedToken(
            entropy(TOKEN_ID_SIZE),
            entropy(TOKEN_SECRET_SIZE),
            expires,
            made=int(wall),
            routes=routes,
        )
        self._tokens[minted.id] = minted
        return JoinToken(
            id=minted.id,
            secret=minted.secret,
            static=member.static.public,
            member=member.node,
            authority_fingerprint=pinned,
            endpoints=endpoints,
            expires=minted.expires,
        )

    def secret(self, token: bytes, wall: float) -> bytes | None:
        """The secret of a remembered token: one that is of no more use is told so, encrypted."""
        self._purge(wall)
        minted = self._tokens.get(token)
        return minted.secret if minted else None

    def get(self, token: bytes) -> MintedToken | None:
        """What is remembered of a token."""
        return self._tokens.get(token)

    def use(self, token: bytes, node: NodeId, certificate: bytes) -> None:
        """Note who used a token, and what for."""
        self._tokens[token] = replace(self._tokens[token], used_by=node, certificate=certificate)

    def revoke(self, token: str, wall: float) -> MintedToken:
        """Let a token admit nobody any more, and say what it was before.

        Revoking it again changes nothing. The node that it has admitted stays a member, but is not
        given its certificate a second time.

        Args:
            token: its id in hex digits, or as many of the first as no other one has.
            wall: Unix seconds.

        Raises:
            RefusedError: `no-such-token`, `token-ambiguous`. Nothing else.
        """
        self._purge(wall)
        found = [name for name in self._tokens if name.hex().startswith(token.lower())]
        if not found or not token:
            why, fix = f"no token {token[:40]!r} is remembered", "see muslin token list for the ids"
            raise RefusedError("no-such-token", why, fix)
        if len(found) > 1:
            why = f"{len(found)} tokens have an id that begins with {token}"
            raise RefusedError("token-ambiguous", why, "give more of the id")
        before = self._tokens[found[0]]
        self._tokens[before.id] = replace(before, revoked=True)
        return before

    def views(self, wall: float) -> tuple[TokenView, ...]:
        """All that are remembered, the oldest first."""
        self._purge(wall)
        tokens = sorted(self._tokens.values(), key=lambda minted: (minted.made, minted.id))
        return tuple(minted.view(wall) for minted in tokens)

    def _purge(self, wall: float) -> None:
        oldest = wall - REMEMBERED_AFTER
        self._tokens = {
            name: minted for name, minted in self._tokens.items() if minted.expires >= oldest
        }

    def encode(self) -> bytes:
        """The stored bytes."""
        tokens = [
            [
                minted.id,
                minted.secret,
                minted.expires,
                minted.made,
                minted.used_by or b"",
                minted.certificate,
                minted.revoked,
                pack_routes(minted.routes),
            ]
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
    fields = Fields(value, "token", 8)
    used_by = fields.bytes(4, limit=KEY_SIZE)
    return MintedToken(
        id=fields.bytes(0, TOKEN_ID_SIZE),
        secret=fields.bytes(1, TOKEN_SECRET_SIZE),
        expires=fields.integer(2, high=MAX_TIME),
        made=fields.integer(3, high=MAX_TIME),
        used_by=NodeId(used_by) if used_by else None,
        certificate=_certificate(fields.bytes(5, limit=CERTIFICATE_MAX)),
        revoked=fields.boolean(6),
        routes=routes_untrusted(fields, 7),
    )


def _certificate(stored: bytes) -> bytes:
    if stored:
        Certificate.decode_untrusted(stored)
    return stored
