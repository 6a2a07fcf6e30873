"""Signing without a daemon; what becomes of the certificate is in `test_requesting`."""

from __future__ import annotations

import os

from node.identity import load_node
from node.requesting import _load, request
from node.signing import sign_here
from node.state import StateFolder
from overlay.offline import unseal
from overlay.types import NodeId
from tests.node.test_requesting import HERE, authority, folder

__all__ = ["authority", "folder"]


def test_each_run_goes_on_where_the_last_one_ended(folder, authority, tmp_path) -> None:
    """Serials grow, and boot numbers do: nothing is ever signed twice under one number."""
    serials = []
    for name in ("a", "b", "c"):
        one = StateFolder(tmp_path / name)
        asked = request(one, name, os.urandom)
        line = sign_here(authority, HERE, str(asked), lifetime=86_400.0)
        grant = unseal(line, _load(one).keys.static)
        serials.append(grant.certificate.serial)
        assert grant.certificate.node == NodeId(asked.node)
        lasts = grant.certificate.not_after - grant.certificate.not_before
        assert 86_400 <= lasts <= 86_400 + 3_700
    assert serials == sorted(set(serials))
    assert load_node(authority).state.boot == 3
