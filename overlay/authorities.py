"""`muslin authority`: change whom the cluster trusts, where the key of an authority is held.

    checks --> link, signed --> list stored --> told to everybody
                                    |
                    here: certificates of a removed authority are void (`overlay.distrust`)

A rotation without a gap: install the new authority; once all members know, use it; each member's
certificate is then renewed (`overlay.renewal`); once none is left by the old one, remove that.
"""

from __future__ import annotations

from typing import Final

from overlay.catalog.removals import removal_content, removal_key
from overlay.catalog.trust import Standing
from overlay.effects import Effect, Report
from overlay.errors import RefusedError
from overlay.keys import KEY_SIZE, is_weak
from overlay.steward import Steward
from overlay.types import NodeId
from overlay.views import AuthorityView
from overlay.wire.authority import (
    AUTHORITIES_KEY,
    LINKS_MAX,
    LIST_MAX,
    STATEMENTS_MAX,
    Act,
    digest_of,
    list_item,
    sign_link,
)

_SHOWN: Final = 16
"""Hexadecimal digits of a key in a message; `muslin authority list` has them all."""

_EVENTS: Final = {
    Act.INSTALL: "authority.installed",
    Act.USE: "authority.used",
    Act.REMOVE: "authority.removed",
}

_LIST: Final = "see muslin authority list"


class Authorities:
    """Handles the list of authorities on one node.

    Args:
        steward: looks after what the node holds.
    """

    def __init__(self, steward: Steward) -> None:
        self._steward = steward
        self._parts = steward.parts

    def views(self) -> tuple[AuthorityView, ...]:
        """Every authority there was, the first one first."""
        return tuple(
            AuthorityView(
                key=one.key,
                standing=one.standing.value,
                since=one.since,
                held=self._parts.signers.holds(one.key),
                members=tuple(self._certified_by(one.key)),
            )
            for one in self._parts.catalog.judge.trust.states()
        )

    def install(self, key: bytes, now: float) -> list[Effect]:
        """Trust another authority: its public key, 32 bytes. What it signs counts from then on.

        Raises:
            RefusedError: `bad-key`, `known-authority`, `authority-removed`, or a code of `_change`.
                Nothing else.
        """
        if len(key) != KEY_SIZE or is_weak(key) or self._is_node(key):
            why = "that is not the public key of an authority"
            raise RefusedError("bad-key", why, "give the key that it was shown with, in full")
        standing = self._parts.catalog.judge.trust.standing(key)
        if standing is Standing.REMOVED:
            why = f"authority {_short(key)} was removed, and cannot come back"
            raise RefusedError("authority-removed", why, "make another key")
        if standing is not None:
            raise RefusedError("known-authority", f"authority {_short(key)} is installed", _LIST)
        return self._change(Act.INSTALL, key, now)

    def use(self, key: bytes, now: float) -> list[Effect]:
        """Have new certificates signed by this authority, and the present ones renewed.

        Raises:
            RefusedError: `unknown-authority`, `in-use`, or a code of `_change`. Nothing else.
        """
        self._check_idle(key, "it signs certificates already; nothing is to be done")
        return self._change(Act.USE, key, now)

    def remove(self, key: bytes, now: float, *, force: bool = False) -> list[Effect]:
        """Trust an authority no more, for ever. Certificates by it are void from then on.

        Args:
            key: its public key.
            now: monotonic seconds.
            force: also if members have certificates by it.

        Raises:
            RefusedError: `unknown-authority`, `in-use`, `members-left`, `too-many-statements`, or a
                code of `_change`. Nothing else.
        """
        self._check_idle(key, "install and use another one first")
        left = self._certified_by(key)
        if left and not force:
            raise RefusedError(
                "members-left",
                f"{', '.join(left)} would be cut off: their certificates are by that authority",
                "wait until they have renewed them, remove who is gone, or use --force",
            )
        return self._change(Act.REMOVE, key, now)

    def _change(self, act: Act, key: bytes, now: float) -> list[Effect]:
        """Make, store and tell the next link.

        Raises:
            RefusedError: `not-authority`, `not-stored`, `identity-conflict`, `too-many-links`,
                `too-many-statements`, `store-full`. Nothing else.
        """
        self._steward.check_may_give()
        trust, signer = self._parts.catalog.judge.trust, self._parts.signers.for_link(key)
        if signer is None:
            raise RefusedError(
                "not-authority",
                "this node does not hold the key of an authority that is trusted",
                "run it where the key is, at first where muslin init ran",
            )
        if len(trust.links) >= LINKS_MAX:
            why = f"the list of authorities has changed {LINKS_MAX} times"
            raise RefusedError("too-many-links", why, "it is full: found a new cluster")
        stands = self._statements(key) if act is Act.REMOVE else []
        if len(stands) > STATEMENTS_MAX:
            raise _too_many(len(stands))
        time = int(self._parts.wall.at(now))
        link = sign_link(
            signer, self._steward.cluster, trust.links, act, key, time=time, stands=stands
        )
        item = list_item([*trust.links, link])
        if len(item.body) > LIST_MAX:
            raise _too_many(len(stands))
        if not self._parts.store.fits(AUTHORITIES_KEY):
            raise RefusedError("store-full", "this node cannot remember another item")
        report = Report(_EVENTS[act], {"key": _short(key)})
        return [*self._steward.own_changed(now, item), report, *self._steward.tidy(now)]

    def _statements(self, key: bytes) -> list[bytes]:
        """Digests of all that this authority said and is in force here."""
        catalog, store, cluster = self._parts.catalog, self._parts.store, self._steward.cluster.id
        gone = (node for node, removal in catalog.removed.items() if removal.signer == key)
        removals = (store.get(removal_key(node)) for node in gone)
        said = [removal_content(item) for item in removals if item is not None]
        said += [
            base.signed_bytes(cluster) for base in catalog.titles.bases() if base.signer == key
        ]
        return [digest_of(one) for one in said]

    def _check_idle(self, key: bytes, fix: str) -> None:
        standing = self._parts.catalog.judge.trust.standing(key)
        if standing is Standing.IN_USE:
            why = f"authority {_short(key)} is in use"
            raise RefusedError("in-use", why, fix)
        if standing is not Standing.TRUSTED:
            why = f"no authority {_short(key)} is trusted"
            raise RefusedError("unknown-authority", why, _LIST)

    def _certified_by(self, key: bytes) -> list[str]:
        """Names of members with certificates by this authority, in order."""
        records = self._parts.catalog.nodes.values()
        own = self._steward.identity
        names = {
            record.name
            for record in records
            if record.certificate.issuer == key and not record.left and record.node != own.node
        }
        return sorted(names | ({own.name} if own.certificate.issuer == key else set()))

    def _is_node(self, key: bytes) -> bool:
        catalog, node = self._parts.catalog, NodeId(key)
        return node in catalog.nodes or catalog.is_out(node)


def _short(key: bytes) -> str:
    return key.hex()[:_SHOWN]


def _too_many(count: int) -> RefusedError:
    return RefusedError(
        "too-many-statements",
        f"{count} removals and blocks rest on that authority's word, more than a list can name",
        "keep it installed: it harms nobody while its key is safe",
    )
