"""A reader gives what the bytes say, and checks one certificate once."""

from __future__ import annotations

import pytest

from overlay.catalog import reader as module
from overlay.catalog.reader import Reader
from overlay.catalog.records import sign_record
from overlay.drops import DropReason
from overlay.errors import AuthError, WireError
from overlay.keys import SigningKey
from overlay.wire.certificate import Certificate

from .world import CLUSTER, LIMITS, forged, identity

ALICE, BOB = identity("alice"), identity("bob")


@pytest.fixture
def checks(monkeypatch):
    """Which certificates were verified, in order."""
    seen = []
    check = Certificate.verify_signature

    def verify_signature(certificate, cluster):
        seen.append(certificate.name)
        check(certificate, cluster)

    monkeypatch.setattr(Certificate, "verify_signature", verify_signature)
    return seen


def test_a_certificate_is_verified_once_whatever_carries_it(checks):
    reader = Reader(CLUSTER, LIMITS)
    first = reader.record(sign_record(ALICE, version=1))
    second = reader.record(sign_record(ALICE, version=2))
    assert (first.version, second.version) == (1, 2)
    assert reader.certificate(ALICE.certificate.encode()) is second.certificate
    assert checks == ["alice"]


def test_what_its_issuer_has_not_signed_is_refused_every_time(checks):
    reader = Reader(CLUSTER, LIMITS)
    for _ in range(2):
        with pytest.raises(AuthError) as caught:
            reader.certificate(forged("alice").certificate.encode())
        assert caught.value.reason is DropReason.BAD_CERTIFICATE
    assert checks == ["alice", "alice"]


def test_whether_the_issuer_is_trusted_is_another_question():
    other = identity("alice", authority=SigningKey(b"X" * 32)).certificate
    assert Reader(CLUSTER, LIMITS).certificate(other.encode()) == other


def test_the_oldest_certificate_is_forgotten_when_there_are_too_many(checks, monkeypatch):
    monkeypatch.setattr(module, "CERTIFICATES", 1)
    reader = Reader(CLUSTER, LIMITS)
    for one in (ALICE, BOB, BOB, ALICE):
        assert reader.certificate(one.certificate.encode()) == one.certificate
    assert checks == ["alice", "bob", "alice"]


def test_a_record_signed_by_another_is_refused_although_the_certificate_is_known():
    reader = Reader(CLUSTER, LIMITS)
    item = sign_record(ALICE, version=1)
    reader.record(item)
    with pytest.raises(AuthError):
        reader.record(item._replace(body=bytes(64) + item.body[64:]))
    with pytest.raises(WireError):
        reader.record(item._replace(version=2))


def test_alone_it_keeps_no_items():
    item = sign_record(ALICE, version=1)
    assert Reader(CLUSTER, LIMITS).keep(item) is item
