"""Signing a request where no daemon runs: the engine starts, signs, and is thrown away.

It is the same engine, with the same checks and the same book of names. Nothing is sent: whatever
it wants to tell anybody it will want to tell again when the daemon starts. What it wants stored is
stored, in order, before the certificate is shown.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable
from contextlib import closing, suppress

from node.config import NodeConfig
from node.identity import StoredNode, load_node
from node.journal import Journal
from node.state import STATE, StateFolder
from node.surroundings import boot_id
from node.version import software_version
from overlay.catalog.keys import node_key
from overlay.catalog.reader import Reader
from overlay.config import Settings
from overlay.effects import Effect, Persist
from overlay.engine import Engine
from overlay.errors import AuthError, WireError
from overlay.types import Endpoint, Prefix


def sign_here(
    folder: StateFolder,
    config: NodeConfig,
    request: str,
    *,
    lifetime: float | None = None,
    routes: tuple[Prefix, ...] | None = None,
    passphrase: str | None = None,
) -> str:
    """The certificate for `request`, as a line.

    Args:
        folder: of the node that holds the authority's key; no daemon runs there.
        config: its settings.
        request: what `muslin cert request` printed.
        lifetime: seconds; see `overlay.offline.Signer.sign`.
        routes: outside routes that the node may advertise; None: those it may already.
        passphrase: of the authority's key, if it has one.

    Raises:
        WrongPassphraseError: it is not that.
        ConfigError: the folder or the request is damaged.
        RefusedError: see `overlay.offline.Signer.sign`.
        NodeError: the folder is in use, or cannot be written to. Nothing else.
    """
    with folder.locked():
        node = load_node(folder, passphrase)
        with closing(Journal.open(folder.path / STATE.name)) as journal:
            engine = _engine(node, config)
            _store(journal, engine.start(0.0))
            line, effects = engine.sign_request(request, 0.0, lifetime=lifetime, routes=routes)
            _store(journal, effects)
    return line


def _engine(node: StoredNode, config: NodeConfig) -> Engine:
    return Engine(
        identity=node.identity,
        cluster=node.cluster,
        psk=node.psk,
        state=node.state,
        settings=Settings(certificate_lifetime=config.certificate_lifetime),
        entropy=os.urandom,
        rng=random.Random(),
        epoch=time.time(),
        endpoints=config.advertise or _last_endpoints(node),
        deliver=lambda _: True,
        transmit=lambda *_: True,
        authorities=node.authorities,
        version=software_version(),
        boot_id=boot_id(),
    )


def _last_endpoints(node: StoredNode) -> tuple[Endpoint, ...]:
    """Where others reached the node when its daemon last ran."""
    reader, own = Reader(node.cluster, Settings().limits), node_key(node.certificate.node)
    for item in node.state.items:
        if item.key == own:
            with suppress(WireError, AuthError):
                return reader.record(item).endpoints
    return ()


def _store(journal: Journal, effects: Iterable[Effect]) -> None:
    for effect in effects:
        if isinstance(effect, Persist):
            journal.append(effect.changes)
