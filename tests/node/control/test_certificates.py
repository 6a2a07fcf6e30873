"""Certificates through the control socket, on a real engine."""

from __future__ import annotations

import asyncio

import pytest

from node.control.certificates import Certificates
from node.control.schema import ControlError
from node.errors import NodeError
from overlay.errors import ConfigError, RefusedError
from overlay.offline import LONGEST_LIFETIME, unseal
from overlay.wire.offline import CertificateRequest
from tests.node.control.test_tokens import OnEngine
from tests.support.clusters import signing_key, static_key

REQUEST = CertificateRequest.sign(signing_key(9), static_key(9).public, "vm9")


@pytest.fixture
def daemon() -> OnEngine:
    return OnEngine()


def ask(daemon: OnEngine, method: str, **params: object) -> object:
    return asyncio.run(Certificates(daemon).methods[method](params))


def test_a_request_is_signed_stored_and_shown_with_what_to_compare(daemon) -> None:
    answer = ask(daemon, "cert.sign", request=str(REQUEST), routes=["192.0.2.0/24"])
    grant = unseal(answer["certificate"], static_key(9))
    assert [str(route) for route in grant.certificate.routes] == ["192.0.2.0/24"]
    assert answer["name"] == "vm9"
    assert answer["fingerprint"] == REQUEST.fingerprint.hex()
    assert answer["authority"] == grant.cluster.authority_fingerprint.hex()
    assert daemon.kept == [b"names"]


def test_a_certificate_that_is_not_stored_is_not_shown(daemon) -> None:
    daemon.disk_full = True
    with pytest.raises(NodeError):
        ask(daemon, "cert.sign", request=str(REQUEST))


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({}, ControlError),
        ({"request": "x"}, ConfigError),
        ({"request": str(REQUEST), "lifetime": 1}, ControlError),
        ({"request": str(REQUEST), "lifetime": LONGEST_LIFETIME * 2}, ControlError),
        ({"request": str(REQUEST), "routes": "192.0.2.0/24"}, ControlError),
        ({"request": str(REQUEST), "routes": [5]}, ControlError),
        ({"request": str(REQUEST), "routes": ["192.0.2.1/24"]}, ConfigError),
        ({"request": str(REQUEST), "routes": ["10.244.0.0/24"]}, ConfigError),
    ],
)
def test_a_wrong_request_changes_nothing(daemon, params, error) -> None:
    before = daemon.engine.parts.registrar.encode()
    with pytest.raises(error):
        ask(daemon, "cert.sign", **params)
    assert daemon.kept == []
    assert daemon.engine.parts.registrar.encode() == before


def test_certificates_are_shown_with_what_is_left_of_them(daemon) -> None:
    shown = ask(daemon, "cert.show")
    assert shown == ask(daemon, "cert.show", node="node1")
    own = daemon.engine.identity.certificate
    assert (shown["serial"], shown["id"]) == (own.serial, own.node.hex())
    wall = daemon.facts().epoch + daemon.now()
    assert shown["remaining"] == round(own.not_after - wall, 3)
    with pytest.raises(RefusedError) as caught:
        ask(daemon, "cert.show", node="node9")
    assert caught.value.code == "no-such-node"


def test_a_certificate_is_installed_when_it_is_stored(daemon) -> None:
    own = daemon.engine.identity
    request = CertificateRequest.sign(
        own.signing, own.static.public, own.name, own.certificate.cluster
    )
    line = ask(daemon, "cert.sign", request=str(request))["certificate"]
    made = unseal(line, own.static).certificate
    daemon.kept.clear()
    ask(daemon, "cert.install", certificate=made.encode().hex())
    assert daemon.kept == [b"certificate"]
    with pytest.raises(ControlError):
        ask(daemon, "cert.install", certificate="xyz")
    with pytest.raises(RefusedError) as caught:
        ask(daemon, "cert.install", certificate="00")
    assert caught.value.code == "bad-certificate"
