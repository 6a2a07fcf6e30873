"""Tests of overlay.wire.offline."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest

from overlay.errors import AuthError, ConfigError, WireError
from overlay.wire.items import Item
from overlay.wire.offline import (
    GRANT_LIMIT,
    GRANT_LINE,
    REQUEST_LINE,
    CertificateRequest,
    Grant,
)
from tests.support.clusters import (
    AUTHORITY,
    make_cluster,
    make_identity,
    signing_key,
    static_key,
)

CLUSTER = make_cluster()
REQUEST = CertificateRequest.sign(signing_key(1), static_key(1).public, "vm2")
RENEWAL = CertificateRequest.sign(signing_key(1), static_key(1).public, "vm2", CLUSTER.id)
GRANT = Grant(
    cluster=CLUSTER,
    certificate=make_identity(1, CLUSTER).certificate,
    psk=b"p" * 32,
    items=(Item(b"n" * 33, 7, b"record"),),
).signed(AUTHORITY)


def raw(request: CertificateRequest) -> list[object]:
    head = [1, request.node, request.static, request.name, request.cluster]
    return [*head, request.signature]


# -- requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [REQUEST, RENEWAL])
def test_a_request_is_the_documented_line_and_is_read_again(request_) -> None:
    line = str(request_)
    assert line.startswith("muslin-request1-")
    assert msgpack.unpackb(REQUEST_LINE.read_untrusted(line)) == raw(request_)
    assert CertificateRequest.parse(f"{line}\n") == request_


def test_a_request_is_for_a_name_that_can_be_one() -> None:
    with pytest.raises(ConfigError, match="is not a name"):
        CertificateRequest.sign(signing_key(1), static_key(1).public, "Vm_2")


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (1, bytes(signing_key(2).public)),
        (2, static_key(2).public),
        (3, "vm3"),
        (4, CLUSTER.id),
        (5, bytes(64)),
    ],
)
def test_a_request_with_anything_changed_is_not_signed(at: int, value: object) -> None:
    fields = raw(REQUEST)
    fields[at] = value
    with pytest.raises(ConfigError, match="not signed by the key in it"):
        CertificateRequest.parse(REQUEST_LINE.write(msgpack.packb(fields)))


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, 2), (1, b"x"), (2, b"x" * 33), (3, "Vm"), (3, 5), (4, b"1234"), (4, b"x" * 9), (5, b"")],
)
def test_a_request_of_another_shape_is_refused(at: int, value: object) -> None:
    fields = raw(REQUEST)
    fields[at] = value
    with pytest.raises(ConfigError):
        CertificateRequest.parse(REQUEST_LINE.write(msgpack.packb(fields)))


def test_a_fingerprint_is_of_keys_and_name() -> None:
    others = [
        CertificateRequest.sign(signing_key(2), static_key(1).public, "vm2"),
        CertificateRequest.sign(signing_key(1), static_key(2).public, "vm2"),
        CertificateRequest.sign(signing_key(1), static_key(1).public, "vm3"),
    ]
    assert len({request.fingerprint for request in [REQUEST, *others]}) == 4
    assert RENEWAL.fingerprint == REQUEST.fingerprint
    assert len(REQUEST.fingerprint) == 16


def test_a_request_and_a_certificate_are_not_taken_for_each_other() -> None:
    with pytest.raises(ConfigError, match=r"this is not a certificate: .* muslin cert sign"):
        GRANT_LINE.read_untrusted(str(REQUEST))
    with pytest.raises(ConfigError, match="this is not a request for a certificate"):
        CertificateRequest.parse(GRANT_LINE.write(GRANT.encode()))


# -- grants ----------------------------------------------------------------------------------------


def test_a_grant_is_read_again_and_verifies() -> None:
    assert Grant.decode_untrusted(GRANT.encode()) == GRANT
    GRANT.verify()
    without = replace(GRANT, psk=b"", items=()).signed(AUTHORITY)
    assert Grant.decode_untrusted(without.encode()) == without
    without.verify()


def test_a_grant_does_not_show_its_secret_when_printed() -> None:
    assert "ppp" not in repr(GRANT)


@pytest.mark.parametrize(
    "change",
    [
        {"psk": b"q" * 32},
        {"psk": b""},
        {"items": ()},
        {"items": (Item(b"n" * 33, 8, b"record"),)},
        {"certificate": make_identity(2, CLUSTER).certificate},
        {"signature": bytes(64)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_grant_with_anything_exchanged_is_not_the_issuers_word(change) -> None:
    with pytest.raises(AuthError, match="not signed by its issuer"):
        replace(GRANT, **change).verify()


def test_a_grant_signed_by_another_than_the_issuer_proves_nothing() -> None:
    with pytest.raises(AuthError):
        GRANT.signed(signing_key(1)).verify()


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 2),
        (1, b"x"),
        (2, b"x"),
        (3, b"p" * 31),
        (4, [[b"", 1, b""]]),
        (4, [[b"n", 1, b""]] * 257),
        (5, b""),
    ],
)
def test_a_grant_of_another_shape_is_refused(at: int, value: object) -> None:
    fields = msgpack.unpackb(GRANT.encode())
    fields[at] = value
    with pytest.raises(WireError):
        Grant.decode_untrusted(msgpack.packb(fields))


def test_the_largest_grant_fits_its_line() -> None:
    sealed = bytes(GRANT_LIMIT + 48)
    assert GRANT_LINE.read_untrusted(GRANT_LINE.write(sealed)) == sealed
