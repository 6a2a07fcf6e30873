"""MACs and cookies, recomputed here with nothing but hashlib and one AEAD call."""

from __future__ import annotations

import random
from hashlib import blake2s

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from overlay.errors import AuthError
from overlay.session.cookie import COOKIE_LIFE, MacChecker, MacMaker
from overlay.types import Endpoint
from overlay.wire.handshake import CookieReply, Initiation
from tests.support.clusters import static_key

STATIC = static_key(1).public
SOURCE = Endpoint("192.0.2.1", 4242)
BARE = Initiation(7, b"e" * 32, b"s" * 48, b"p" * 60).encode()


def checker(seed: int = 0) -> MacChecker:
    return MacChecker(STATIC, random.Random(seed).randbytes)


def cookie_for(node: MacChecker, datagram: bytes, now: float = 0.0) -> CookieReply:
    return CookieReply.decode_untrusted(node.cookie_reply(datagram, 7, SOURCE, now))


def test_mac1_is_the_documented_hash_and_mac2_is_zero_without_a_cookie():
    datagram = MacMaker(STATIC).with_macs(BARE, 0.0)
    key = blake2s(b"muslin mac1" + STATIC).digest()
    assert datagram[:-32] == BARE[:-32]
    assert datagram[-32:-16] == blake2s(BARE[:-32], key=key, digest_size=16).digest()
    assert datagram[-16:] == bytes(16)


def test_cookie_reply_and_mac2_are_as_documented():
    maker, node = MacMaker(STATIC), checker()
    datagram = maker.with_macs(BARE, 0.0)
    reply = cookie_for(node, datagram)
    assert reply.receiver == 7

    nonce, secret = (draw := random.Random(0).randbytes)(24), draw(32)
    label_key = blake2s(b"muslin cookie" + STATIC).digest()
    aead = ChaCha20Poly1305(blake2s(nonce, key=label_key).digest())
    cookie = aead.decrypt(bytes(12), reply.enc_cookie, datagram[-32:-16])
    address = b"192.0.2.1" + (4242).to_bytes(2, "big")
    assert reply.nonce == nonce
    assert cookie == blake2s(address, key=secret, digest_size=16).digest()

    maker.read_cookie_untrusted(reply, 0.0)
    again = maker.with_macs(BARE, 1.0)
    assert again[-16:] == blake2s(again[:-16], key=cookie, digest_size=16).digest()
    assert node.mac2_is_valid(again, SOURCE, 1.0)


def test_mac1_for_another_node_or_of_other_bytes_is_refused():
    node = checker()
    node.check_mac1(MacMaker(STATIC).with_macs(BARE, 0.0))
    other = MacMaker(static_key(2).public).with_macs(BARE, 0.0)
    changed = b"\x02" + MacMaker(STATIC).with_macs(BARE, 0.0)[1:]
    for datagram in (BARE, other, changed):
        with pytest.raises(AuthError):
            node.check_mac1(datagram)


def test_mac2_holds_for_one_address_and_port_only():
    maker, node = MacMaker(STATIC), checker()
    maker.read_cookie_untrusted(cookie_for(node, maker.with_macs(BARE, 0.0)), 0.0)
    datagram = maker.with_macs(BARE, 1.0)
    assert node.mac2_is_valid(datagram, SOURCE, 1.0)
    assert not node.mac2_is_valid(datagram, Endpoint("192.0.2.1", 4243), 1.0)
    assert not node.mac2_is_valid(datagram, Endpoint("192.0.2.2", 4242), 1.0)
    assert not node.mac2_is_valid(maker.with_macs(BARE, 0.0)[:-1] + b"\xff", SOURCE, 1.0)


def test_the_secret_changes_after_its_life_and_so_does_every_cookie():
    maker, node = MacMaker(STATIC), checker()
    maker.read_cookie_untrusted(cookie_for(node, maker.with_macs(BARE, 0.0)), 0.0)
    datagram = maker.with_macs(BARE, COOKIE_LIFE - 1)
    assert node.mac2_is_valid(datagram, SOURCE, COOKIE_LIFE - 1)
    assert not node.mac2_is_valid(datagram, SOURCE, COOKIE_LIFE)


def test_an_initiator_stops_using_a_cookie_after_its_life():
    maker, node = MacMaker(STATIC), checker()
    maker.read_cookie_untrusted(cookie_for(node, maker.with_macs(BARE, 0.0)), 5.0)
    assert maker.cookie_until == 5.0 + COOKIE_LIFE
    assert maker.with_macs(BARE, 124.9)[-16:] != bytes(16)
    assert maker.with_macs(BARE, 125.0)[-16:] == bytes(16)


def test_a_cookie_is_taken_once_and_only_for_the_last_message():
    maker, node = MacMaker(STATIC), checker()
    early = cookie_for(node, maker.with_macs(BARE, 0.0))
    other = Initiation(8, b"E" * 32, b"s" * 48, b"p" * 60).encode()
    late = cookie_for(node, maker.with_macs(other, 1.0))
    with pytest.raises(AuthError):
        maker.read_cookie_untrusted(early, 1.0)
    assert maker.cookie_until == 0.0
    maker.read_cookie_untrusted(late, 1.0)
    with pytest.raises(AuthError):
        maker.read_cookie_untrusted(late, 50.0)
    assert maker.cookie_until == 1.0 + COOKIE_LIFE


def test_who_knows_the_static_key_alone_cannot_plant_a_cookie_behind_the_right_one():
    maker, node = MacMaker(STATIC), checker()
    maker.read_cookie_untrusted(cookie_for(node, maker.with_macs(BARE, 0.0)), 0.0)
    nonce = bytes(24)
    label_key = blake2s(b"muslin cookie" + STATIC).digest()
    aead = ChaCha20Poly1305(blake2s(nonce, key=label_key).digest())
    planted = CookieReply(7, nonce, aead.encrypt(bytes(12), bytes(16), b""))
    with pytest.raises(AuthError):
        maker.read_cookie_untrusted(planted, 1.0)
    assert node.mac2_is_valid(maker.with_macs(BARE, 2.0), SOURCE, 2.0)


def test_a_cookie_from_somebody_else_is_refused():
    maker = MacMaker(STATIC)
    stranger = MacChecker(static_key(2).public, random.Random(0).randbytes)
    with pytest.raises(AuthError):
        maker.read_cookie_untrusted(cookie_for(stranger, maker.with_macs(BARE, 0.0)), 0.0)
