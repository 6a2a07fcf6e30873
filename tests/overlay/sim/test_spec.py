"""Tests of links as scenarios have them."""

from __future__ import annotations

import pytest

from overlay.errors import ConfigError
from overlay.sim.link import Link, Spread
from overlay.sim.spec import PRESETS, LinkSpec


def test_a_table_changes_single_values_of_its_preset():
    link = LinkSpec.read({"preset": "wan", "loss": 0.5, "spread": "normal"}, "link").link
    assert (link.loss, link.spread, link.rate) == (0.5, Spread.NORMAL, Link.wan().rate)
    assert LinkSpec.read({}, "link").link == Link()


def test_every_preset_has_a_name():
    for name, preset in PRESETS.items():
        assert LinkSpec.read({"preset": name}, "link").link == preset()


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (5, "link"),
        ({"preset": "moon"}, "link.preset"),
        ({"lost": 0.1}, "link.lost"),
        ({"loss": 1.5}, "link.loss"),
        ({"latency": "1"}, "link.latency"),
    ],
)
def test_what_is_no_link_is_refused_by_its_key(value, key):
    with pytest.raises(ConfigError) as refused:
        LinkSpec.read(value, "link")
    assert refused.value.key == key
