"""Tests of the memory of signatures."""

from __future__ import annotations

from overlay.keys import SigningKey, verify
from overlay.sim.notary import Notary


def test_what_a_key_signs_is_remembered_and_the_signature_is_an_ordinary_one():
    notary = Notary()
    key = notary.key(bytes(32))
    signature = key.sign("record", b"hello")
    assert signature == SigningKey(bytes(32)).sign("record", b"hello")
    assert verify(key.public, "record", b"hello", signature)
    assert notary.signed(key.public, b"hello")
    assert not notary.signed(key.public, b"other")
    assert not notary.signed(bytes(32), b"hello")


def test_what_the_same_key_signs_elsewhere_is_not_known():
    notary = Notary()
    key = notary.key(bytes(32))
    SigningKey(bytes(32)).sign("record", b"forged with a stolen key")
    assert not notary.signed(key.public, b"forged with a stolen key")
