from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import get_args

import pytest

from overlay.wire.control import encode
from overlay.wire.messages import ITEMS_LIMIT, MESSAGE_LIMIT, JoinGrant, Message, PathProbe, Probe
from overlay.wire.packing import unpack_untrusted


def test_messages_are_values():
    probe = Probe(7)
    assert probe == Probe(7)
    assert hash(probe) == hash(Probe(7))
    with pytest.raises(FrozenInstanceError):
        probe.sequence = 8


def test_every_message_is_a_dataclass_with_a_description():
    for kind in get_args(Message):
        assert kind.__dataclass_params__.frozen, kind
        assert kind.__doc__, kind
        assert not kind.__doc__.startswith(f"{kind.__name__}("), "written, not generated"


def test_what_is_secret_or_long_stays_out_of_logs():
    grant = JoinGrant(1, b"certificate", b"cluster", b"s" * 32, ())
    assert "ssss" not in repr(grant)
    assert "padding" not in repr(PathProbe(1500, bytes(1400)))


def test_limits_leave_room_for_what_they_allow():
    assert unpack_untrusted(encode(Probe(7)), MESSAGE_LIMIT) == [1, 7, []]
    assert 14 * ITEMS_LIMIT < MESSAGE_LIMIT
