from __future__ import annotations

from unittest.mock import Mock

import pytest

from node import birth
from node.birth import make_engine
from node.config import NodeConfig
from node.handover.capsule import Capsule
from overlay.types import Endpoint


@pytest.mark.parametrize("capsule", [None, Capsule(b"what it knew")])
def test_an_engine_is_made_of_folder_settings_machine_and_what_was_handed_over(
    monkeypatch: pytest.MonkeyPatch, capsule: Capsule | None
) -> None:
    monkeypatch.setattr(birth, "Engine", made := Mock())
    edges, node, around = Mock(), Mock(), Mock(endpoints=(Endpoint("192.0.2.1", 1),))
    edges.udp.offloads, edges.tun.offloads = ("udp_gso",), ("tso",)
    make_engine(NodeConfig(mtu=1400, lanes=2), node, edges, around, capsule)
    (call,) = made.call_args_list
    assert call.kwargs["inherited"] == (b"what it knew" if capsule else None)
    assert call.kwargs["state"] is node.state
    assert call.kwargs["endpoints"] == around.endpoints
    assert call.kwargs["deliver"] is edges.tun.write
    assert call.kwargs["lanes"] == 2
    settings = call.kwargs["settings"]
    assert (settings.mtu, settings.offloads) == (1400, ("udp_gso", "tso"))
