"""Join tokens, as the operator of the authority's node handles them: make, list, revoke.

    muslin token           a fresh one, stored, then shown
    muslin token list      all that are remembered, without their secrets
    muslin token revoke    admits nobody any more, stored, then answered

What a token is to a joiner is decided in `overlay.admission`.
"""

from __future__ import annotations

from overlay.catalog.outside import check_consent
from overlay.effects import Effect
from overlay.errors import RefusedError
from overlay.steward import Steward
from overlay.tokens import TokenBook
from overlay.types import Entropy, Prefix
from overlay.views import TokenView
from overlay.wire.token import MAX_ENDPOINTS


class Inviter:
    """Handles the tokens of one node.

    Args:
        steward: looks after what the node holds.
        entropy: makes ids and secrets.
    """

    def __init__(self, steward: Steward, entropy: Entropy) -> None:
        self._steward = steward
        self._parts = steward.parts
        self._entropy = entropy

    def mint(
        self, ttl: float, now: float, routes: tuple[Prefix, ...] = ()
    ) -> tuple[str, list[Effect]]:
        """A join token, as text, and what must be stored before it is shown.

        Args:
            ttl: seconds for which it is good.
            now: monotonic seconds.
            routes: outside networks that the node it admits may advertise.

        Raises:
            RefusedError: `not-authority`, `no-endpoint`, `not-stored`, `too-many-tokens`,
                `identity-conflict`.
            ConfigError: `routes` are more than a node may have, or nobody may. Nothing else.
        """
        self._steward.check_may_give()
        book = self._book()
        endpoints = self._parts.record.endpoints
        if not endpoints:
            what = "no underlay address to put into the token"
            raise RefusedError("no-endpoint", what, "use --advertise")
        token = book.mint(
            ttl,
            member=self._steward.identity,
            pinned=self._parts.catalog.judge.trust.fingerprint,
            endpoints=endpoints[:MAX_ENDPOINTS],
            entropy=self._entropy,
            wall=self._parts.wall.at(now),
            routes=check_consent(routes, self._steward.cluster),
        )
        return str(token), [self._steward.persist()]

    def views(self, now: float) -> tuple[TokenView, ...]:
        """All tokens that are remembered, the oldest first.

        Raises:
            RefusedError: `not-authority`. Nothing else.
        """
        return self._book().views(self._parts.wall.at(now))

    def revoke(self, token: str, now: float) -> tuple[TokenView, list[Effect]]:
        """Revoke a token; what it was before, and what must be stored before that is said.

        Args:
            token: its id in hex digits, or the first of them.
            now: monotonic seconds.

        Raises:
            RefusedError: `not-authority`, `not-stored`, `no-such-token`, `token-ambiguous`.
                Nothing else.
        """
        book, wall = self._book(), self._parts.wall.at(now)
        # A node whose identity is in doubt may do this, too: it gives nothing away.
        self._steward.check_storable()
        before = book.revoke(token, wall).view(wall)
        return before, [self._steward.persist()]

    def _book(self) -> TokenBook:
        registrar = self._parts.registrar
        if registrar is None:
            fix = "run muslin token where the key is, at first where muslin init ran"
            what = "this node does not hold the authority's key"
            raise RefusedError("not-authority", what, fix)
        return registrar.tokens
