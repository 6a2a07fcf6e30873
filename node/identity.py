"""Who this node is, on disk: its keys, its membership, and the authority where it was founded.

    identity.key    seed of the Ed25519 key (32) || seed of the X25519 key (32)
    cluster         msgpack [cluster, shared secret 32, certificate], encoded as on the wire
    authority.key   keys of authorities (`node.authority_keys`)

`write_node` stores `state` last, and `StateFolder.used_by` reports a folder in use from the first
file on: an interrupted `init` or `join` leaves a folder that is refused, never one that half works.

The files are checked against each other when they are loaded, so that a key restored from another
node's backup is named here and not as a failed handshake somewhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from node.authority_keys import read_keys, write_keys
from node.journal import Journal, read_entries
from node.state import AUTHORITY, CLUSTER, IDENTITY, REQUEST, STATE, StateFolder, StoredFile
from overlay.catalog.trust import Trust, stored_trust
from overlay.errors import AuthError, ConfigError, WireError
from overlay.keys import KEY_SIZE, SigningKey, StaticKey
from overlay.renewal import present_identity
from overlay.state import NodeState
from overlay.types import Entropy, NodeId
from overlay.wire.certificate import CERTIFICATE_MAX, Certificate, Identity
from overlay.wire.cluster import CLUSTER_MAX, Cluster
from overlay.wire.packing import Fields, pack

PSK_SIZE: Final = 32
_MEMBERSHIP_MAX: Final = CLUSTER_MAX + PSK_SIZE + CERTIFICATE_MAX + 16


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """The two private keys of a node."""

    signing: SigningKey
    static: StaticKey

    @classmethod
    def make(cls, entropy: Entropy) -> NodeKeys:
        """Fresh keys from `entropy`."""
        return cls(SigningKey(entropy(KEY_SIZE)), StaticKey(entropy(KEY_SIZE)))


@dataclass(frozen=True, slots=True)
class StoredNode:
    """Everything the folder says about its node."""

    keys: NodeKeys
    cluster: Cluster
    psk: bytes = field(repr=False)
    """The cluster's shared secret, mixed into every handshake."""
    certificate: Certificate
    """The one it joined with; `state` may hold a later one."""
    state: NodeState
    """What the engine last persisted."""
    authorities: tuple[SigningKey, ...] = ()
    """Private keys of authorities; where the cluster was founded, at least that one's."""

    @property
    def fingerprint(self) -> bytes:
        """Of the cluster's authorities, 16 bytes."""
        return stored_trust(self.state.items, self.cluster).fingerprint

    @property
    def identity(self) -> Identity:
        """Keys, and the certificate of the day it joined: where the engine starts from."""
        return Identity(self.keys.signing, self.keys.static, self.certificate)


def write_node(folder: StateFolder, node: StoredNode, passphrase: str | None = None) -> None:
    """Store a new node in an unused folder, `state` last; its authority under a passphrase.

    Raises:
        NodeError: the file system does not allow it. Nothing else.
    """
    if node.authorities:
        write_keys(folder, node.authorities, passphrase)
    folder.write(IDENTITY, node.keys.signing.seed + node.keys.static.seed)
    membership = [node.cluster.encode(), node.psk, node.certificate.encode()]
    folder.write(CLUSTER, pack(membership))
    Journal.create(folder.path / STATE.name, node.state.entries()).close()


def load_node(folder: StateFolder, passphrase: str | None = None) -> StoredNode:
    """Read the folder back.

    Args:
        folder: of the node.
        passphrase: of the authority's key; without it, one that has a passphrase is locked.

    Raises:
        WrongPassphraseError: it is not that passphrase.
        ConfigError: no node here, or none yet, or a file is missing, damaged or of another node,
            or others may enter the folder; names the file and what to do.
        NodeError: the folder may not be looked into. Nothing else.
    """
    if folder.used_by() is None:
        raise ConfigError(
            f"{folder.path} holds no node yet: "
            "run muslin init, muslin join TOKEN or muslin cert request first"
        )
    if folder.has(REQUEST) and not folder.has(STATE):
        raise ConfigError(
            f"{folder.path} waits for its certificate: install it with muslin cert install"
        )
    folder.check_private()
    seeds = _read_sized(folder, IDENTITY, 2 * KEY_SIZE)
    keys = NodeKeys(SigningKey(seeds[:KEY_SIZE]), StaticKey(seeds[KEY_SIZE:]))
    cluster, psk, certificate = _load_membership(folder)
    if (certificate.node, certificate.static) != (keys.signing.public, keys.static.public):
        raise _mismatch(folder, IDENTITY, CLUSTER)
    state = state_of(folder, read_entries(folder.path / STATE.name))
    trust = stored_trust(state.items, cluster)
    authorities = _load_authorities(folder, trust, certificate.node, passphrase)
    node = StoredNode(keys, cluster, psk, certificate, state, authorities)
    try:
        present_identity(node.identity, node.state.certificate)
    except ConfigError as error:
        raise _unusable(folder, STATE, str(error)) from error
    return node


def _load_membership(folder: StateFolder) -> tuple[Cluster, bytes, Certificate]:
    payload = folder.read(CLUSTER)
    try:
        fields = Fields.unpack_untrusted(payload, _MEMBERSHIP_MAX, count=3)
        cluster = Cluster.decode_untrusted(fields.bytes(0))
        cluster.verify()
        psk = fields.bytes(1, PSK_SIZE)
        certificate = Certificate.decode_untrusted(fields.bytes(2))
    except (WireError, AuthError) as error:
        raise _unusable(folder, CLUSTER, str(error)) from error
    if certificate.cluster != cluster.id:
        raise _unusable(folder, CLUSTER, "the certificate is of another cluster")
    return cluster, psk, certificate


def _load_authorities(
    folder: StateFolder, trust: Trust, node: NodeId, passphrase: str | None
) -> tuple[SigningKey, ...]:
    keys = read_keys(folder, passphrase)
    strange = not any(trust.standing(key.public) for key in keys)
    if keys and strange and node == trust.cluster.genesis:
        raise _mismatch(folder, AUTHORITY, CLUSTER)
    return keys


def state_of(folder: StateFolder, entries: Mapping[bytes, bytes]) -> NodeState:
    """What the entries of the folder's journal say.

    Raises:
        ConfigError: they cannot be used; names the file and what to do. Nothing else.
    """
    try:
        return NodeState.from_entries(entries)
    except WireError as error:
        if "newer" in str(error):
            path = folder.path / STATE.name
            raise ConfigError(f"{path} is unusable ({error}): upgrade this Muslin") from error
        raise _unusable(folder, STATE, str(error)) from error


def _read_sized(folder: StateFolder, file: StoredFile, size: int) -> bytes:
    payload = folder.read(file)
    if len(payload) != size:
        raise _unusable(folder, file, f"{len(payload)} bytes instead of {size}")
    return payload


def _unusable(folder: StateFolder, file: StoredFile, why: str) -> ConfigError:
    return ConfigError(f"{folder.path / file.name} is unusable ({why}): restore it from a backup")


def _mismatch(folder: StateFolder, first: StoredFile, second: StoredFile) -> ConfigError:
    return ConfigError(
        f"{folder.path / first.name} and {second.name} are of different nodes:"
        " restore both from one backup"
    )
