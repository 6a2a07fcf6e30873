"""How a node comes to be: the values that `muslin init` and `muslin join` store.

Both first make everything in memory, check it, and only then touch the state folder.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from node.config import NodeConfig, example, load_config
from node.errors import NodeError
from node.identity import PSK_SIZE, NodeKeys, StoredNode, write_node
from node.state import CONFIG, REQUEST, StateFolder
from overlay.admission import Registrar
from overlay.config import CERTIFICATE_LIFETIME
from overlay.errors import ConfigError
from overlay.keys import KEY_SIZE, SigningKey
from overlay.state import NodeState
from overlay.types import Endpoint, Entropy
from overlay.validity import validity
from overlay.wire.certificate import check_name, issue_certificate
from overlay.wire.cluster import found_cluster

FIRST_SERIAL: Final = 1
"""Of the founding node's certificate; `overlay.admission` counts on from there."""


def node_name(given: str | None) -> str:
    """The name to use: the given one, or the host's, lower-cased and without its domain.

    Raises:
        ConfigError: it is not a name; the key is `--name`. Nothing else.
    """
    name = given if given is not None else socket.gethostname().partition(".")[0].lower()
    try:
        return check_name(name)
    except ConfigError as error:
        why = str(error)
        if given is None:
            why = f"the host name {name!r} cannot be a node name ({error}), give another"
        raise ConfigError(why, "--name") from error


def found_node(
    name: str,
    *,
    cidr: IPv4Network,
    cidr6: IPv6Network | None,
    block_prefix: int,
    entropy: Entropy,
    wall: float,
    lifetime: int = CERTIFICATE_LIFETIME,
) -> StoredNode:
    """A new cluster with its first node, which holds the authority's key.

    `lifetime` is that of the node's certificate, in seconds.

    Raises:
        ConfigError: the name or the ranges will not do. Nothing else.
    """
    authority = SigningKey(entropy(KEY_SIZE))
    keys = NodeKeys.make(entropy)
    cluster = found_cluster(
        authority,
        genesis=keys.signing.public,
        cidr=cidr,
        cidr6=cidr6,
        block_prefix=block_prefix,
        created=int(wall),
        entropy=entropy,
    )
    not_before, not_after = validity(wall, lifetime)
    certificate = issue_certificate(
        authority,
        node=keys.signing.public,
        static=keys.static.public,
        name=name,
        cluster=cluster.id,
        serial=FIRST_SERIAL,
        not_before=not_before,
        not_after=not_after,
    )
    psk = entropy(PSK_SIZE)
    registrar = Registrar(authority, cluster=cluster, psk=psk, tokens=b"", names=b"")
    registrar.reserve(name, keys.signing.public)  # no later node may call itself the same
    state = NodeState(names=registrar.encode())
    return StoredNode(keys, cluster, psk, certificate, state, (authority,))


def check_unused(folder: StateFolder) -> None:
    """Whether a node may be stored in `folder`.

    Raises:
        NodeError: there is one already (`folder-used`). Nothing else.
    """
    found = folder.used_by()
    if found == REQUEST.name:
        raise NodeError(
            f"{folder.path} waits for a certificate ({found})",
            "install it with muslin cert install, or choose another folder with --state",
            code="folder-used",
        )
    if found is not None:
        raise NodeError(
            f"{folder.path} already holds a node ({found})",
            "choose another folder with --state, or remove this one",
            code="folder-used",
        )


def settings_to_write(
    folder: StateFolder,
    listen: Endpoint | None,
    advertise: tuple[Endpoint, ...],
    certificate_days: int | None = None,
) -> str | None:
    """The text of a config.toml that keeps the given flags; None when there is none to write.

    Raises:
        ConfigError: the folder has a config.toml that says something else, or a broken one.
    """
    present = load_config(folder.config, {})
    wanted = NodeConfig(
        listen=listen or present.listen,
        advertise=advertise or present.advertise,
        certificate_days=certificate_days or present.certificate_days,
    )
    if folder.config.exists():
        for key in ("listen", "advertise", "certificate_days"):
            if getattr(present, key) != getattr(wanted, key):
                raise ConfigError(f"{folder.config} exists and says otherwise, edit it", key)
        return None
    return example(wanted) if wanted != NodeConfig() else None


@contextmanager
def reserved(folder: StateFolder) -> Iterator[None]:
    """Make and hold a folder that has no node yet; one made in vain is gone again.

    Raises:
        NodeError: it is in use or has a node, or the file system does not allow it.
    """
    made = not folder.path.exists()
    folder.create()
    with folder.locked():
        complete = False
        try:
            check_unused(folder)
            yield
            complete = True
        finally:
            if made and not complete:
                folder.discard()


def store_node(
    folder: StateFolder, node: StoredNode, settings: str | None, passphrase: str | None = None
) -> None:
    """Write everything into a reserved folder; the authority's key under a passphrase, if given.

    Raises:
        NodeError: the file system does not allow it. Nothing else.
    """
    if settings is not None:
        folder.write_raw(CONFIG, settings.encode())
    write_node(folder, node, passphrase)
