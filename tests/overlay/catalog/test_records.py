"""A record proves whose it is, and nothing false gets through."""

from __future__ import annotations

from dataclasses import fields, replace
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.catalog.keys import block_of_key, deed_key, node_key, node_of_key
from overlay.catalog.records import (
    ENDPOINTS_MAX,
    NodeRecord,
    PodEntry,
    decode_record_untrusted,
    open_record_untrusted,
    sign_record,
    usable_endpoint,
)
from overlay.complaints import COMPLAINTS_MAX, Complaint
from overlay.drops import DropReason
from overlay.errors import AuthError, CapacityError, ForgedError, NewerError, WireError
from overlay.faults import FAULTS, Fault
from overlay.keys import SigningKey
from overlay.types import Endpoint, NodeId
from overlay.wire.certificate import Certificate
from overlay.wire.items import Item
from overlay.wire.packing import pack
from overlay.wire.routes import ROUTES_MAX

from .world import CLUSTER, LIMITS, PLAN, WALL, forged, identity

ALICE = identity("alice")
RECORD = NodeRecord(
    certificate=ALICE.certificate,
    version=3 << 32 | 7,
    endpoints=(Endpoint("192.0.2.1", 6875), Endpoint("2001:db8::1", 6875)),
    blocks_in_use=(5, 2),
    free_blocks=4,
    pods=(PodEntry("web-1", 5, 2, WALL), PodEntry("db", 2, 254, WALL + 9)),
    software="0.1.0",
    is_authority=True,
    removals=b"removals",
    resumed=2 << 32 | 9,
    complaints=(Complaint(NodeId(bytes(32)), Fault.FORGED_DEED),),
    routes=(ip_network("192.168.7.0/24"), ip_network("::/0")),
    crossed=(ip_network("10.244.7.0/24"),),
)


def sign(record, who=ALICE, **options):
    """The item that announces `record`, whose fields are `sign_record`'s arguments."""
    named = {
        one.name: getattr(record, one.name)
        for one in fields(record)
        if one.name not in ("certificate", "body", "whole")
    }
    return sign_record(who, **named, **options)


def opened(item, read=None):
    return open_record_untrusted(item, CLUSTER, PLAN, LIMITS, read)


def content_of(**changes):
    """The fields of RECORD as they are packed, some of them replaced."""
    values = {
        "format": 1,
        "version": RECORD.version,
        "certificate": ALICE.certificate.encode(),
        "left": False,
        "is_authority": True,
        "software": "0.1.0",
        "endpoints": [["192.0.2.1", 6875], ["2001:db8::1", 6875]],
        "blocks": [5, 2],
        "free_blocks": 4,
        "pods": [["web-1", 5, 2, WALL], ["db", 2, 254, WALL + 9]],
        "removals": b"removals",
        "conflict": False,
        "resumed": 2 << 32 | 9,
        "complaints": [[bytes(32), 2]],
        "routes": [b"\xc0\xa8\x07\x00\x18", bytes(17)],
        "crossed": [b"\x0a\xf4\x07\x00\x18"],
    }
    return list((values | changes).values())


def signed(content, *, key=ALICE.signing, item_key=None, version=RECORD.version, context="record"):
    packed = pack(content)
    return Item(item_key or node_key(ALICE.node), version, key.sign(context, packed) + packed)


def test_a_record_reads_back_as_it_was_signed():
    item = sign(RECORD)
    assert (item.key, item.version) == (b"n" + ALICE.node, RECORD.version)
    assert opened(item) == RECORD
    assert decode_record_untrusted(item, CLUSTER, PLAN, LIMITS) == RECORD
    assert (RECORD.node, RECORD.name, RECORD.boot) == (ALICE.node, "alice", 3)


def test_a_record_keeps_the_routes_of_its_certificate():
    routes = (ip_network("192.168.0.0/16"), ip_network("2001:db8::/32"))
    known = opened(sign(RECORD, identity("alice", routes=routes)))
    assert sorted(known.certificate.routes, key=str) == sorted(routes, key=str)


def test_a_record_whose_certificate_allows_a_part_of_the_cluster_is_refused():
    inside = identity("alice", routes=(ip_network("10.244.3.0/24"),))
    assert "allows too much" in refusal(sign(RECORD, inside))


def test_a_record_has_known_bytes():
    """Ed25519 is deterministic (RFC 8032, section 5.1.6), so the whole item is."""
    item = sign(RECORD)
    assert item == signed(content_of())
    certificate = ALICE.certificate.encode()
    assert item.body[64:] == (
        b"\xdc\x00\x10\x01\xcf\x00\x00\x00\x03\x00\x00\x00\x07"
        + (b"\xc4" + bytes([len(certificate)]) + certificate)
        + b"\xc2\xc3\xa50.1.0"
        + b"\x92\x92\xa9192.0.2.1\xcd\x1a\xdb\x92\xab2001:db8::1\xcd\x1a\xdb"
        + b"\x92\x05\x02\x04"
        + b"\x92\x94\xa5web-1\x05\x02\xce\x68\x4e\xe1\x80\x94\xa2db\x02\xcc\xfe\xce\x68\x4e\xe1\x89"
        + b"\xc4\x08removals"
        + b"\xc2\xcf\x00\x00\x00\x02\x00\x00\x00\x09"
        + (b"\x91\x92\xc4\x20" + bytes(32) + b"\x02")
        + b"\x92\xc4\x05\xc0\xa8\x07\x00\x18\xc4\x11"
        + bytes(17)
        + b"\x91\xc4\x05\x0a\xf4\x07\x00\x18"
    )


def test_a_tombstone_keeps_only_certificate_and_version():
    item = sign(replace(RECORD, left=True))
    assert opened(item) == NodeRecord(ALICE.certificate, RECORD.version, left=True)
    assert len(item.body) < 400


def test_fields_of_a_newer_version_are_ignored_but_signed():
    item = signed([*content_of(), "something new"])
    assert opened(item) == RECORD


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"removals": b"short"},
        {"removals": 8},
        {"version": 4 << 32},
        {"certificate": b""},
        {"certificate": identity("bob").certificate.encode()},
        {"left": 0},
        {"is_authority": 1},
        {"software": "x" * 65},
        {"software": "a\x1b[31mb"},
        {"endpoints": [["vm1.example.org", 6875]]},
        {"endpoints": [["192.0.2.1", 0]]},
        {"endpoints": [["192.0.2.1"]]},
        {"endpoints": [["192.0.2.1", 6875]] * (ENDPOINTS_MAX + 1)},
        {"blocks": [5, 2, 16]},
        {"blocks": [5, 2, 5]},
        {"blocks": [*range(16), 0]},
        {"blocks": [5, -2]},
        {"free_blocks": 17},
        {"pods": [["Web", 5, 2, WALL]]},
        {"pods": [["web", 5, 1, WALL]]},
        {"pods": [["web", 5, 255, WALL]]},
        {"pods": [["web", 6, 2, WALL]]},
        {"pods": [["web", 5, 2]]},
        {"pods": [["web", 5, 2, -1]]},
        {"pods": [["web", 5, 2, WALL], ["web", 5, 3, WALL]]},
        {"pods": [["web", 5, 2, WALL], ["db", 5, 2, WALL]]},
        {"blocks": [], "pods": [["web", 5, 2, WALL]]},
        {"routes": [b"\x0a\x01\x00\x00\x08"]},
        {"routes": [b"\x0a\x00\x00\x00\x21"]},
        {"routes": [b"\x0a\x00\x00\x08"]},
        {"routes": [b"\x0a\x00\x00\x00\x08"] * 2},
        {"routes": ["10.0.0.0/8"]},
        {"routes": [bytes([n, 0, 0, 0, 8]) for n in range(ROUTES_MAX + 1)]},
    ],
)
def test_contents_that_cannot_be_are_refused(changes):
    with pytest.raises(WireError):
        opened(signed(content_of(**changes)))


@pytest.mark.parametrize("count", range(15))
def test_a_shorter_record_is_refused(count):
    with pytest.raises(WireError):
        opened(signed(content_of()[:count]))


def test_a_record_over_the_limit_is_neither_read_nor_written():
    tight = replace(LIMITS, record=100)
    with pytest.raises(CapacityError) as caught:
        sign(RECORD, limit=tight.record)
    assert caught.value.limit == "record"
    with pytest.raises(WireError):
        decode_record_untrusted(sign(RECORD), CLUSTER, PLAN, tight)


def refusal(item, **options):
    with pytest.raises(AuthError) as caught:
        opened(item, **options)
    assert caught.value.reason is DropReason.BAD_CERTIFICATE
    return str(caught.value)


def test_a_record_signed_by_another_key_or_for_another_purpose_is_refused():
    assert "not signed by it" in refusal(signed(content_of(), key=SigningKey(b"x" * 32)))
    assert "not signed by it" in refusal(signed(content_of(), context="deed"))


def test_a_record_of_somebody_else_does_not_pass_under_this_key():
    with pytest.raises(WireError):
        opened(sign(RECORD)._replace(key=node_key(identity("bob").node)))
    with pytest.raises(WireError):
        opened(sign(RECORD)._replace(version=RECORD.version + 1))


def test_the_certificate_must_be_of_this_cluster():
    assert "another cluster" in refusal(sign(RECORD, identity("alice", cluster=b"12345678")))


def test_whoever_reads_certificates_answers_for_their_issuer():
    assert opened(sign(RECORD, forged("alice")), read=Certificate.decode_untrusted).name == "alice"


@settings(max_examples=60)
@given(st.data())
def test_no_altered_byte_passes(data):
    item = sign(RECORD)
    place = data.draw(st.integers(0, len(item.body) - 1))
    flipped = item.body[place] ^ data.draw(st.integers(1, 255))
    body = item.body[:place] + bytes([flipped]) + item.body[place + 1 :]
    with pytest.raises((WireError, AuthError)):
        opened(item._replace(body=body))


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(body):
    with pytest.raises(WireError):
        opened(Item(node_key(ALICE.node), 1, body))


@pytest.mark.parametrize(
    ("host", "usable"),
    [
        ("192.0.2.1", True),
        ("2001:db8::1", True),
        ("127.0.0.1", True),
        ("10.244.3.1", False),
        ("10.244.16.1", True),
        ("fd4d:75::1", False),
        ("224.0.0.1", False),
        ("ff02::1", False),
        ("0.0.0.0", False),
        ("::", False),
    ],
)
def test_an_address_inside_the_overlay_or_of_a_group_is_never_an_endpoint(host, usable):
    assert usable_endpoint(Endpoint(host, 1), CLUSTER) is usable
    item = signed(content_of(endpoints=[[host, 1]]))
    assert opened(item).endpoints == ((Endpoint(host, 1),) if usable else ())


def test_endpoints_are_read_in_their_shortest_form():
    item = signed(content_of(endpoints=[["::ffff:192.0.2.1", 1], ["2001:db8:0::1", 2]]))
    assert opened(item).endpoints == (Endpoint("192.0.2.1", 1), Endpoint("2001:db8::1", 2))


def test_without_ipv6_there_is_no_ipv6_range_to_avoid():
    plain = replace(CLUSTER, cidr6=None)
    assert usable_endpoint(Endpoint("fd4d:75::1", 1), plain)


def test_a_key_says_whose_record_or_which_block_it_is():
    assert node_key(ALICE.node) == b"n" + ALICE.node
    assert deed_key(258) == b"b\0\0\1\2"
    assert node_of_key(node_key(ALICE.node)) == ALICE.node
    assert block_of_key(deed_key(258)) == 258
    for key in (b"", b"n", b"b", b"n" + bytes(31), b"b" + bytes(3), b"x" + bytes(32)):
        assert node_of_key(key) is None
        assert block_of_key(key) is None


def test_whether_a_record_holds_does_not_depend_on_the_time():
    late = identity("alice", lasts=0)
    assert opened(sign(RECORD, late)).name == "alice"
    assert opened(sign_record(late, version=1, left=True)).left
    assert "not signed by its issuer" in refusal(sign(RECORD, forged("alice")))
    assert "not signed" in refusal(sign_record(forged("alice"), version=1, left=True))


def test_complaints_of_a_newer_version_say_nothing_and_the_record_stands():
    listed = [[bytes(32), len(FAULTS)], [bytes(32), 255], [bytes(32), 0]]
    record = opened(signed(content_of(complaints=listed)))
    assert record.complaints == (Complaint(NodeId(bytes(32)), Fault.FORGED_RECORD),)


@pytest.mark.parametrize(
    "listed",
    [
        [[bytes(32), one] for one in range(COMPLAINTS_MAX + 1)],
        [[bytes(32), 1], [bytes(32), 1]],
        [[bytes(31), 1]],
        [[bytes(32), 256]],
        [[bytes(32), "forged"]],
        [[bytes(32)]],
        {"a": 1},
    ],
)
def test_complaints_over_the_limit_or_of_a_wrong_shape_are_refused(listed):
    with pytest.raises(WireError):
        opened(signed(content_of(complaints=listed)))


def test_who_signed_a_record_wrongly_is_told_from_one_that_is_only_out_of_date():
    with pytest.raises(ForgedError) as found:
        opened(signed(content_of(), key=identity("bob").signing))
    assert found.value.fault is Fault.FORGED_RECORD
    with pytest.raises(NewerError):
        opened(signed(content_of(format=2)))
