"""Tests of overlay.requests: an engine answers all of them, and what it lets out is settled."""

from __future__ import annotations

import inspect

from overlay.effects import (
    Effect,
    Persist,
    RemovalShown,
    SendControl,
    SessionDown,
    SessionUp,
    StampRefused,
)
from overlay.engine import Engine
from overlay.requests import Requests
from overlay.types import Endpoint
from overlay.wire.control import encode
from overlay.wire.messages import Probe
from tests.sim.worlds import settled

INTERNAL = SendControl | SessionUp | SessionDown | StampRefused | RemovalShown


def test_the_engine_overrides_settling_alone() -> None:
    requests = {name for name, _ in inspect.getmembers(Requests, inspect.isfunction)}
    assert {name for name in requests if name in vars(Engine)} - {"__init__"} == {"_settle"}


def test_a_node_seeks_a_block_from_when_it_wants_one_until_it_has_one() -> None:
    world = settled(2)
    engine = world["node2"].engine
    assert not engine.seeks_block()
    engine.parts.seeker.seek(world.now)
    assert engine.seeks_block()
    engine.parts.seeker.found()
    assert not engine.seeks_block()


def test_no_request_lets_internal_effects_out() -> None:
    world = settled(3)
    engine, now = world["node1"].engine, world.now
    node = world["node2"].membership.identity.node
    made: list[Effect] = [
        *engine.add_pod("web", "/ns/web", None, now)[1],
        *engine.remove_pod("web", now)[1],
        *engine.mint_token(60.0, now)[1],
        *engine.revoke_token(engine.tokens(now)[0].id.hex(), now)[1],
        *engine.on_endpoints((Endpoint("192.0.2.9", 1),), now),
        *engine.on_underlay_mtu(1400, now),
        *engine.probe(node, 7, now),
        *engine.say(node, encode(Probe(1)), now),
    ]
    assert any(isinstance(effect, Persist) for effect in made)
    assert not [effect for effect in made if isinstance(effect, INTERNAL)]


def test_an_audit_changes_nothing() -> None:
    world = settled(2)
    world["node1"].add_pod("web")
    engine = world["node1"].engine
    before = engine.snapshot(world.now)
    assert [finding.pod for finding in engine.audit((), world.now)] == ["web"]
    assert engine.snapshot(world.now) == before
