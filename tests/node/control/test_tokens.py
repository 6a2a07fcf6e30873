"""Tokens through the control socket, on a real engine."""

from __future__ import annotations

import asyncio
import json

import pytest

from node.control.params import LONGEST_TTL
from node.control.schema import ControlError
from node.control.tokens import Tokens
from node.errors import NodeError
from overlay.errors import RefusedError
from overlay.wire.token import JoinToken
from tests.sim.worlds import settled
from tests.support.daemon import FakeDaemon


class OnEngine(FakeDaemon):
    """A daemon with a real engine."""

    def __init__(self) -> None:
        super().__init__()
        world = settled(1)
        self.engine = world["node1"].engine
        self.time = world.now

    def now(self) -> float:
        return self.time


@pytest.fixture
def daemon() -> OnEngine:
    return OnEngine()


def ask(daemon: FakeDaemon, method: str, **params: object) -> object:
    return asyncio.run(Tokens(daemon).methods[method](params))


def test_a_token_is_listed_without_its_secret_and_can_be_revoked(daemon) -> None:
    token = JoinToken.parse(ask(daemon, "token", ttl=60)["token"])
    listed = ask(daemon, "token.list")
    (row,) = listed
    assert (row["id"], row["state"], row["node"]) == (token.id.hex(), "unused", None)
    assert token.secret.hex() not in json.dumps(listed)
    daemon.kept.clear()
    assert ask(daemon, "token.revoke", id=row["id"][:6])["state"] == "unused"
    assert daemon.kept == [b"tokens"]
    (row,) = ask(daemon, "token.list")
    assert row["state"] == "revoked"


def test_a_revocation_that_is_not_stored_is_not_told(daemon) -> None:
    token = JoinToken.parse(ask(daemon, "token")["token"])
    daemon.disk_full = True
    with pytest.raises(NodeError):
        ask(daemon, "token.revoke", id=token.id.hex())


@pytest.mark.parametrize("ttl", [0, LONGEST_TTL + 1, "1h", True])
def test_a_token_for_ever_or_for_no_time_is_not_made(daemon, ttl) -> None:
    with pytest.raises(ControlError) as caught:
        ask(daemon, "token", ttl=ttl)
    assert caught.value.code == "bad-request"
    assert ask(daemon, "token.list") == []


def test_what_is_no_id_of_a_token_is_refused(daemon) -> None:
    with pytest.raises(RefusedError) as caught:
        ask(daemon, "token.revoke", id="ff")
    assert caught.value.code == "no-such-token"
    with pytest.raises(ControlError):
        ask(daemon, "token.revoke")
