"""A certificate that comes by hand: the side of the machine that wants one.

    no node     --request-->  request.key   keys and a name: nothing to start yet
    request.key --install-->  a node        as if it had joined
    a node      --request-->  the same, with another certificate to come; nothing is stored

`request.key` is one file, so it is there whole or not at all. Installing writes the files of a node
beside it, the state last, and removes it then. Whatever interrupts that, the folder still waits for
its certificate, or is a node: the same line can be installed again.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final

from node.founding import node_name, reserved
from node.identity import NodeKeys, StoredNode, load_node, write_node
from node.journal import Journal
from node.state import REQUEST, STATE, StateFolder
from overlay.errors import AuthError, ConfigError, RefusedError, WireError
from overlay.keys import KEY_SIZE, SigningKey, StaticKey
from overlay.offline import check_grant, items_with, unseal
from overlay.renewal import check_new, present_identity
from overlay.state import NodeState
from overlay.types import Entropy
from overlay.wire.certificate import NAME_MAX
from overlay.wire.offline import CertificateRequest, Grant
from overlay.wire.packing import Fields, pack

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Requested:
    """Keys that wait for their certificate."""

    keys: NodeKeys
    name: str

    @property
    def request(self) -> CertificateRequest:
        """What to have signed."""
        return CertificateRequest.sign(self.keys.signing, self.keys.static.public, self.name)


def is_waiting(folder: StateFolder) -> bool:
    """Whether the folder has a request whose certificate was not installed, or not to the end."""
    return folder.has(REQUEST) and not folder.has(STATE)


def request(folder: StateFolder, name: str | None, entropy: Entropy) -> CertificateRequest:
    """The request of this machine. Made once: asked again it is the same, unless for another name.

    Args:
        folder: of the node, or of the node that is to be.
        name: the node's; the host's unless given.
        entropy: makes its keys.

    Raises:
        ConfigError: not a name, not the name of the node that is here, or the folder is damaged.
        NodeError: the folder is in use, or the file system does not allow it. Nothing else.
    """
    if is_waiting(folder):
        with folder.locked():
            waiting = _load(folder)
            if name not in (None, waiting.name):
                waiting = Requested(waiting.keys, node_name(name))
                _write(folder, waiting)
        return waiting.request
    if folder.used_by() is not None:
        return _of_node(load_node(folder), name)
    made = Requested(NodeKeys.make(entropy), node_name(name))
    with reserved(folder):
        _write(folder, made)
    return made.request


def _of_node(node: StoredNode, name: str | None) -> CertificateRequest:
    own = node.certificate.name
    if name not in (None, own):
        raise ConfigError(f"this node is called {own}, and a certificate renames nobody", "--name")
    return CertificateRequest.sign(node.keys.signing, node.keys.static.public, own, node.cluster.id)


def install_new(folder: StateFolder, line: str, *, pinned: bytes, wall: float) -> Grant:
    """Make a folder that waits for its certificate a node.

    Args:
        folder: the folder.
        line: what `muslin cert sign` printed.
        pinned: fingerprint of the authorities, from the operator.
        wall: Unix seconds.

    Raises:
        ConfigError: there is no request here, or `line` is not for it.
        RefusedError: see `overlay.offline.check_grant`.
        NodeError: the folder is in use, or the file system does not allow it. Nothing else.
    """
    with folder.locked():
        if not is_waiting(folder):
            raise ConfigError(f"{folder.path} waits for no certificate: run muslin cert request")
        waiting = _load(folder)
        grant = unseal(line, waiting.keys.static)
        check_grant(grant, waiting.request, pinned=pinned, cluster=None, wall=wall)
        state = NodeState(items=grant.items)
        write_node(
            folder, StoredNode(waiting.keys, grant.cluster, grant.psk, grant.certificate, state)
        )
        folder.remove(REQUEST)
    return grant


def open_renewal(folder: StateFolder, line: str, *, pinned: bytes | None, wall: float) -> Grant:
    """What a line has for the node of a folder: another certificate. Nothing is changed.

    Args:
        folder: of the node.
        line: what `muslin cert sign` printed.
        pinned: fingerprint of the authorities; None: the node knows its cluster.
        wall: Unix seconds.

    Raises:
        ConfigError: there is no node here, or `line` is not for it.
        RefusedError: see `overlay.offline.check_grant`.
        NodeError: the folder may not be looked into. Nothing else.
    """
    node = load_node(folder)
    grant = unseal(line, node.keys.static)
    request, held = _of_node(node, None), node.state.items
    check_grant(grant, request, pinned=pinned, cluster=node.cluster, wall=wall, held=held)
    return grant


def install_renewal(folder: StateFolder, grant: Grant, *, wall: float) -> None:
    """Store another certificate of a node whose daemon does not run.

    Args:
        folder: of the node.
        grant: from `open_renewal`.
        wall: Unix seconds.

    Raises:
        ConfigError: the folder is damaged.
        RefusedError: the certificate may not take the place of the present one
            (`bad-certificate`).
        NodeError: the folder is in use, or the file system does not allow it. Nothing else.
    """
    new = grant.certificate
    with folder.locked():
        node = load_node(folder)
        present = present_identity(node.identity, node.state.certificate).certificate
        if new != present:
            try:
                check_new(new, present, wall, by_hand=True)
            except AuthError as error:
                why = f"the certificate cannot take the place of the present one: {error}"
                fix = "have a new request signed: muslin cert request"
                raise RefusedError("bad-certificate", why, fix) from error
            items = items_with(grant, node.state.items)
            stored = node.state.entries()
            changed = replace(node.state, certificate=new.encode(), items=items).entries()
            with closing(Journal.open(folder.path / STATE.name)) as journal:
                journal.append([pair for pair in changed.items() if pair not in stored.items()])
        folder.remove(REQUEST)  # what an installation left that ended early


def _write(folder: StateFolder, waiting: Requested) -> None:
    seeds = waiting.keys.signing.seed, waiting.keys.static.seed
    folder.write(REQUEST, pack([_FORMAT, *seeds, waiting.name]))


def _load(folder: StateFolder) -> Requested:
    folder.check_private()
    payload = folder.read(REQUEST)
    try:
        fields = Fields.unpack_untrusted(payload, len(payload), "request", version=_FORMAT)
        signing, static = fields.bytes(1, KEY_SIZE), fields.bytes(2, KEY_SIZE)
        name = fields.text(3, NAME_MAX)
    except WireError as error:
        path = folder.path / REQUEST.name
        raise ConfigError(f"{path} is unusable ({error}): remove it and ask again") from error
    return Requested(NodeKeys(SigningKey(signing), StaticKey(static)), name)
