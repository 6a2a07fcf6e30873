"""`muslin remove`: declare a node dead for ever, on the node that holds the authority's key.

    checks --> removal, signed --> stored --> told to everybody --> every member acknowledges
                                     |                                        |
                  here: no route, no session, no member any more       its blocks come back
                                                                       (`overlay.landlord`)

Whether the node is really gone only the operator can know. A node that still runs somewhere keeps
its pods and their addresses; it just cannot reach anybody any more.

A member with a certificate that was made by hand, and of which no record was ever heard, has no
name here. It is removed by its id, as `muslin get sessions -o json` shows it.
"""

from __future__ import annotations

from typing import Final

from overlay.catalog.records import NodeRecord
from overlay.catalog.removals import Removal, sign_removal
from overlay.errors import RefusedError
from overlay.keys import KEY_SIZE
from overlay.parts import Parts
from overlay.types import NodeId, short_id
from overlay.views import NodeState
from overlay.wire.certificate import Identity
from overlay.wire.items import Item

ID_DIGITS: Final = 2 * KEY_SIZE
"""Hexadecimal digits of a node id: one more than a name can have."""


class Remover:
    """Makes removals.

    Args:
        parts: the machines of the node.
        identity: who it is.
    """

    def __init__(self, parts: Parts, identity: Identity) -> None:
        self._parts = parts
        self._identity = identity

    def prepare(self, name: str, *, force: bool, wall: float, now: float) -> Item:
        """The removal of the node called `name`. Nothing has changed yet.

        Args:
            name: the node's, or its id in hexadecimal digits.
            force: also if it was heard lately, or never.
            wall: Unix seconds.
            now: monotonic seconds.

        Raises:
            RefusedError: `not-authority`, `itself`, `already-removed`, `no-such-node`, `has-left`,
                `node-alive`, `store-full`, `authority-locked`. Nothing else.
        """
        if self._parts.authority is None:
            raise RefusedError(
                "not-authority",
                "this node does not hold the authority's key",
                "run muslin remove where the key is, at first where muslin init ran",
            )
        if _is_id(name):
            node, record = self._find_id(NodeId(bytes.fromhex(name)), force=force)
            name = self._parts.name_of(node)
        else:
            node, record = self._find(name)
        if record is not None and not force:
            self._check_dead(record, now)
        removal = Removal(
            node=node,
            serial=0 if record is None else record.certificate.serial,
            name=name,
            time=int(wall),
        )
        item = sign_removal(
            self._parts.authority, removal, cluster=self._identity.certificate.cluster
        )
        if not self._parts.store.fits(item.key):
            raise RefusedError("store-full", "this node cannot remember another item")
        return item

    def _find_id(self, node: NodeId, *, force: bool) -> tuple[NodeId, NodeRecord | None]:
        catalog = self._parts.catalog
        if node == self._identity.node:
            return self._find(self._identity.name)
        if node in catalog.removed:
            raise RefusedError("already-removed", f"{short_id(node)} was removed before")
        record = catalog.nodes.get(node)  # not by its name, which another may bear as well
        if record is None and not force and self._parts.sessions.current(node) is None:
            raise RefusedError(
                "no-such-node",
                f"no node with the id {short_id(node)}... was ever heard",
                "use --force to remove it all the same, for ever",
            )
        return node, record

    def _find(self, name: str) -> tuple[NodeId, NodeRecord | None]:
        if name == self._identity.name:
            raise RefusedError(
                "itself",
                "this is the node that holds the authority's key",
                "without it the cluster cannot remove or admit anybody",
            )
        catalog, registrar = self._parts.catalog, self._parts.registrar
        record = catalog.by_name(name)
        # Of one that left, deeds may be lost: they and its tombstone travel apart.
        if record is not None and (not record.left or catalog.titles.moved_to(record.node)):
            return record.node, record
        # The last to be certified under this name may be one of whom nothing was ever heard.
        holder = None if registrar is None else registrar.holder(name)
        if holder is not None and holder not in catalog.nodes and holder not in catalog.removed:
            return holder, None
        if record is not None:
            raise RefusedError("has-left", f"{name} has left the cluster by itself")
        if any(removal.name == name for removal in catalog.removed.values()):
            raise RefusedError("already-removed", f"{name} was removed before")
        raise RefusedError(
            "no-such-node", f"no node {name} is known", "see muslin get nodes for the names"
        )

    def _check_dead(self, record: NodeRecord, now: float) -> None:
        state = self._parts.gossip.state(record.node, now)
        if state in (NodeState.READY, NodeState.SUSPECT):
            raise RefusedError(
                "node-alive",
                f"{record.name} is {state}: it runs, or did a moment ago",
                "run muslin leave there, or stop it for ever and use --force",
            )


def _is_id(text: str) -> bool:
    return len(text) == ID_DIGITS and all(digit in "0123456789abcdef" for digit in text)
