"""Decoders of what nodes say to each other, each alone: they raise what they document, or nothing.

What was decoded is encoded and decoded again where that must give the same.
"""

from __future__ import annotations

from functools import cache

from overlay.catalog.records import decode_record_untrusted, open_record_untrusted, sign_record
from overlay.catalog.removals import (
    Removal,
    open_removal_untrusted,
    removal_key,
    sign_removal,
)
from overlay.catalog.trust import Trust
from overlay.config import Limits
from overlay.errors import AuthError, ConfigError, WireError
from overlay.ipam.deeds import Chain, ChainReader, decode_chain_untrusted, sign_deed, verify_chain
from overlay.ipam.plan import BlockPlan
from overlay.keys import StaticKey
from overlay.offline import unseal
from overlay.session.handshake import PROLOGUE, Attempt, read_initiation_untrusted
from overlay.session.noise import MUSLIN, Handshake
from overlay.types import BlockIndex, Endpoint
from overlay.wire.authority import (
    AUTHORITIES_KEY,
    Act,
    Link,
    links_untrusted,
    list_item,
    sign_link,
)
from overlay.wire.certificate import Certificate
from overlay.wire.claims import Claim, ClaimState, claim_untrusted, prove_alive
from overlay.wire.cluster import Cluster
from overlay.wire.control import decode_untrusted, encode
from overlay.wire.describe import describe
from overlay.wire.handshake import (
    CookieReply,
    Initiation,
    JoinerHello,
    MemberHello,
    Response,
    ResponsePayload,
    StalePayload,
    Suite,
    decode_hello_untrusted,
    decode_response_payload_untrusted,
)
from overlay.wire.header import TYPE_DATA, Header
from overlay.wire.items import Item, item_id, item_untrusted
from overlay.wire.offline import GRANT_LINE, REQUEST_LINE, CertificateRequest, Grant
from overlay.wire.packing import MAX_DEPTH, U64, pack, unpack_untrusted
from overlay.wire.token import _LINE, JoinToken
from tests.fuzz.target import Target, refusing
from tests.overlay.wire.test_control import GOLDEN, ITEM
from tests.overlay.wire.test_offline import GRANT, REQUEST
from tests.overlay.wire.test_token import TOKEN
from tests.support.clusters import (
    AUTHORITY,
    WALL,
    make_cluster,
    make_identity,
    signing_key,
    static_key,
)

CLUSTER = make_cluster()
PLAN = BlockPlan(CLUSTER)
LIMITS = Limits()
NODE = make_identity(1, CLUSTER)
OTHER = make_identity(2, CLUSTER)
HERE = Endpoint("192.0.2.1", 6875)
UNPACKED_LIMIT = 1 << 16


# -- msgpack ---------------------------------------------------------------------------------------


def unpack(data: bytes) -> object:
    """Any value at all; what comes out is no deeper than promised, and packs again."""
    try:
        value = unpack_untrusted(data, UNPACKED_LIMIT)
    except WireError:
        return None
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [one for outer in level for one in _inside(outer)]
    assert not any(isinstance(one, list | dict) for one in level)
    return value


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


# -- datagrams -------------------------------------------------------------------------------------


def header(data: bytes) -> None:
    """The outer header, and the one line that describes any datagram."""
    decoded = refusing(Header.decode_untrusted, WireError)(data)
    if decoded is not None:
        decoded.fault()
        assert decoded.encode() == data[:16]
    assert "\n" not in describe(data)


def handshake_message(data: bytes) -> None:
    """The three messages of a handshake, from outside."""
    for kind in (Initiation, Response, CookieReply):
        decoded = refusing(kind.decode_untrusted, WireError)(data)
        if decoded is not None:
            assert kind.decode_untrusted(decoded.encode()) == decoded


def noise(data: bytes) -> None:
    """An initiation for a node, and a response to an attempt of it: both must prove something."""
    message = Initiation(1, data[:32].ljust(32), data[32:80].ljust(48), data[80:].ljust(16))
    assert (
        refusing(lambda _: read_initiation_untrusted(message, NODE.static), AuthError)(b"") is None
    )
    attempt = _attempt()
    answer = Response(attempt.index, 1, data[:32].ljust(32), data[32:].ljust(16))
    try:
        attempt.finish_untrusted(answer, node=OTHER.node, now=0.0, expires_at=1.0)
    except (AuthError, WireError):
        return
    raise AssertionError("a forged response was taken")


@cache
def _attempt() -> Attempt:
    return Attempt(
        static=NODE.static,
        remote_static=OTHER.static.public,
        psk=bytes(32),
        hello=MemberHello(1, NODE.certificate.encode(), (1, 2)),
        index=7,
        entropy=lambda size: bytes([9]) * size,
    )


def insider_response(data: bytes) -> None:
    """A response that a member sealed well, with anything at all in it."""
    responder = Handshake(MUSLIN, OTHER.static, prologue=PROLOGUE, psk=bytes(32))
    sent = Initiation.decode_untrusted(_attempt().datagram)
    responder.read_untrusted(sent.ephemeral + sent.enc_static + sent.enc_payload)
    message = responder.write(data, lambda size: bytes([8]) * size)
    answer = Response(7, 1, message[:32], message[32:])
    run = refusing(
        lambda _: _attempt().finish_untrusted(answer, node=OTHER.node, now=0.0, expires_at=1.0),
        AuthError,
        WireError,
    )
    run(b"")


def hello(data: bytes) -> None:
    """What stands in an initiation."""
    decoded = refusing(decode_hello_untrusted, WireError)(data)
    if decoded is not None:
        assert decode_hello_untrusted(decoded.encode()) == decoded


def response_payload(data: bytes) -> None:
    """What stands in a response."""
    decoded = refusing(decode_response_payload_untrusted, WireError)(data)
    if decoded is not None:
        assert decode_response_payload_untrusted(decoded.encode()) == decoded


# -- what is signed --------------------------------------------------------------------------------


def certificate(data: bytes) -> None:
    """Equal values are equal bytes, nothing else is a certificate; only ours are signed."""
    decoded = refusing(Certificate.decode_untrusted, WireError)(data)
    if decoded is not None:
        assert decoded.encode() == data
        trusted = Trust.founded(CLUSTER)
        valid = refusing(lambda _: not trusted.check_certificate(decoded, WALL), AuthError)(b"")
        assert not valid or data in _certificates()


def cluster(data: bytes) -> None:
    """The same for clusters."""
    decoded = refusing(Cluster.decode_untrusted, WireError)(data)
    if decoded is not None:
        assert decoded.encode() == data
        refusing(lambda _: decoded.verify(), AuthError)(b"")


@cache
def _certificates() -> list[bytes]:
    return [NODE.certificate.encode(), OTHER.certificate.encode()]


def record(data: bytes) -> None:
    """A record, signed by somebody or not; one that passes is one of ours."""
    item = Item(b"n" + NODE.node, int.from_bytes(data[:8], "big"), data[8:])
    refusing(lambda _: decode_record_untrusted(item, CLUSTER, PLAN, LIMITS), WireError)(b"")
    opened = refusing(
        lambda _: open_record_untrusted(item, CLUSTER, PLAN, LIMITS), WireError, AuthError
    )(b"")
    assert opened is None or item in _records()


@cache
def _records() -> list[Item]:
    return [
        sign_record(
            NODE,
            version=(1 << 32) + 1,
            endpoints=(HERE, Endpoint("2001:db8::1", 1)),
            blocks_in_use=(BlockIndex(1), BlockIndex(9)),
            software="0.1.0",
        ),
        sign_record(NODE, version=2, left=True),
    ]


def removal(data: bytes) -> None:
    """A removal; one that passes is the authority's."""
    item = Item(removal_key(OTHER.node), 1, data)
    opened = refusing(lambda _: open_removal_untrusted(item, CLUSTER), WireError, AuthError)(b"")
    assert opened is None or item == _removal()


def authorities(data: bytes) -> None:
    """A list of authorities; one that is believed is ours, or the beginning of it."""
    extend = Trust.founded(CLUSTER).extend_untrusted
    for count in (1, 2, 3):
        item = Item(AUTHORITIES_KEY, count, data)
        links = refusing(lambda _, item=item: links_untrusted(item), WireError)(b"")
        if links is None:
            continue
        assert list_item(links) == item
        taken = refusing(lambda _, item=item: extend(item), AuthError)(b"")
        assert taken is None or taken.links == _links()[:count]


@cache
def _links() -> tuple[Link, ...]:
    second, links = signing_key(77), []
    for signer, act, key in (
        (AUTHORITY, Act.INSTALL, second),
        (AUTHORITY, Act.USE, second),
        (second, Act.REMOVE, AUTHORITY),
    ):
        stands = [bytes(16)] if act is Act.REMOVE else []
        links.append(sign_link(signer, CLUSTER, links, act, key.public, time=WALL, stands=stands))
    return tuple(links)


@cache
def _removal() -> Item:
    return sign_removal(AUTHORITY, Removal(OTHER.node, 3, "node2", WALL), cluster=CLUSTER.id)


def deeds(data: bytes) -> None:
    """A chain of deeds; one that passes is a beginning of ours."""
    chain = refusing(lambda _: decode_chain_untrusted(data, CLUSTER), WireError)(b"")
    if chain is None:
        return
    assert chain.encode() == data
    reader = ChainReader(CLUSTER)
    passed = refusing(lambda _: not verify_chain(chain, reader), WireError, AuthError)(b"")
    ours = _chain()
    assert not passed or chain == Chain(ours.block, ours.root, None, ours.deeds[: chain.sequence])


@cache
def _chain() -> Chain:
    chain = Chain(BlockIndex(4), CLUSTER.genesis, None, ())
    for giver, taker in ((0, 1), (1, 2), (2, 0)):
        key, to = signing_key(giver), signing_key(taker).public
        chain = sign_deed(key, chain, to, cluster=CLUSTER.id)
    return chain


# -- inside of sessions ----------------------------------------------------------------------------


def control(data: bytes) -> None:
    """A control message."""
    decoded = refusing(decode_untrusted, WireError)(data)
    if decoded is not None:
        assert decode_untrusted(encode(decoded)) == decoded


def item(data: bytes) -> None:
    """An item, and a claim, as they stand in a message."""
    value = unpack(data)
    made = refusing(lambda _: item_untrusted(value), WireError)(b"")
    if made is not None:
        assert len(item_id(made)) == 8
        assert item_untrusted([*made]) == made
    claim = refusing(lambda _: claim_untrusted(value), WireError)(b"")
    assert claim is None or claim_untrusted([*claim[:3], int(claim.state), *claim[4:]]) == claim


# -- tokens ----------------------------------------------------------------------------------------


def token(data: bytes) -> None:
    """A line that somebody pasted; and one whose checksum is right, with anything at all in it."""
    refusing(lambda _: JoinToken.parse(data.decode("utf-8", "replace")), ConfigError)(b"")
    made = refusing(lambda _: JoinToken.parse(_LINE.write(data)), ConfigError)(b"")
    assert made is None or JoinToken.parse(str(made)) == made


def offline(data: bytes) -> None:
    """What is copied by hand for a certificate: a request, and what a certificate comes with."""
    text = data.decode("utf-8", "replace")
    for line in (text, REQUEST_LINE.write(data)):
        made = refusing(CertificateRequest.parse, ConfigError)(line)
        assert made is None or CertificateRequest.parse(str(made)) == made
    key = StaticKey(bytes(32))
    for line in (text, GRANT_LINE.write(data)):
        assert refusing(lambda line: unseal(line, key), ConfigError)(line) is None
    grant = refusing(Grant.decode_untrusted, WireError)(data)
    if grant is not None:
        assert Grant.decode_untrusted(grant.encode()) == grant
        refusing(lambda _: grant.verify(), AuthError)(b"")


def _offline() -> list[bytes]:
    request = REQUEST_LINE.read_untrusted(str(REQUEST))
    return [str(REQUEST).encode(), request, GRANT.encode(), GRANT_LINE.write(request).encode()]


def _hellos() -> list[bytes]:
    member = MemberHello(1 << 32, NODE.certificate.encode(), (1, 2))
    joiner = JoinerHello(bytes(16), NODE.node, (2,))
    return [member.encode(), joiner.encode()]


def _payloads() -> list[bytes]:
    seen = Endpoint("2001:db8::7", 4000)
    return [
        ResponsePayload(Suite.AES_256_GCM, HERE).encode(),
        ResponsePayload(Suite.CHACHA20_POLY1305, seen).encode(),
        StalePayload(U64).encode(),
    ]


def _datagrams() -> list[bytes]:
    response = Response(7, 8, b"e" * 32, b"p" * 40, b"1" * 16, b"2" * 16)
    reply = CookieReply(7, b"n" * 24, b"c" * 32)
    data = Header(TYPE_DATA, index=1, last=3, receiver=7, counter=9)
    return [_attempt().datagram, response.encode(), reply.encode(), data.encode() + bytes(40)]


def _claims() -> list[bytes]:
    proof = prove_alive(NODE.signing, CLUSTER.id, 1, 2)
    lives = [
        Claim(NODE.node, 1, 2, ClaimState.SUSPECT, True, proof),
        Claim(NODE.node, 1, 0, ClaimState.ALIVE, False, b""),
    ]
    return [pack(list(life)) for life in lives]


def _messages() -> list[bytes]:
    return [bytes.fromhex(packed) for _, packed in GOLDEN]


TARGETS = [
    Target("msgpack", unpack, lambda: [*_messages(), pack([[[[1]]], {"a": [2.5, None]}])]),
    Target("header", header, _datagrams),
    Target("handshake-message", handshake_message, _datagrams, 1400),
    Target("noise", noise, lambda: [each[20:-32] for each in _datagrams()], 1400),
    Target("insider-response", insider_response, _payloads, 100),
    Target("hello", hello, _hellos, 1200),
    Target("response-payload", response_payload, _payloads, 200),
    Target("certificate", certificate, lambda: list(_certificates()), 400),
    Target("cluster", cluster, lambda: [CLUSTER.encode(), make_cluster(cidr6=None).encode()], 400),
    Target(
        "record",
        record,
        lambda: [one.version.to_bytes(8, "big") + one.body for one in _records()],
    ),
    Target("removal", removal, lambda: [_removal().body], 400),
    Target(
        "authorities", authorities, lambda: [list_item(_links()[:n]).body for n in (1, 2, 3)], 900
    ),
    Target("deeds", deeds, lambda: [_chain().encode()], 2000),
    Target("control", control, _messages),
    Target("item", item, lambda: [pack(list(ITEM)), *_claims()]),
    Target("offline", offline, _offline),
    Target("token", token, lambda: [str(TOKEN).encode(), *_hellos(), _token_fields()], 2048),
]


def _token_fields() -> bytes:
    static = static_key(3).public
    ends = [["192.0.2.1", 6875], ["2001:db8::1", 1]]
    return pack([bytes(16), bytes(32), static, NODE.node, bytes(16), ends, WALL])
