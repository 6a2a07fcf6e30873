"""Tests of tables that become dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import pytest

from overlay.errors import ConfigError
from overlay.sim.typed import build, partial_of


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    x: float
    colour: Colour = Colour.RED

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ConfigError("x cannot be negative", "x")


@dataclass(frozen=True)
class Outer:
    name: str
    count: int = 1
    on: bool = False
    limit: float | None = None
    inner: Inner | None = None
    several: tuple[Inner, ...] = ()
    named: Mapping[str, int] = field(default_factory=dict)


def test_every_kind_of_value_arrives_with_its_type():
    raw = {
        "name": "a",
        "count": 3,
        "on": True,
        "limit": 2,
        "inner": {"x": 1, "colour": "blue"},
        "several": [{"x": 0.5}],
        "named": {"one": 1},
    }
    inner = Inner(1.0, Colour.BLUE)
    assert build(Outer, raw) == Outer("a", 3, True, 2.0, inner, (Inner(0.5),), {"one": 1})
    assert isinstance(build(Outer, raw).limit, float)


@pytest.mark.parametrize(
    ("change", "key", "why"),
    [
        ({"name": 1}, "name", "must be text"),
        ({"count": True}, "count", "must be a whole number"),
        ({"count": 1.0}, "count", "must be a whole number"),
        ({"limit": "1"}, "limit", "must be a number"),
        ({"limit": float("nan")}, "limit", "must be a number"),
        ({"limit": float("-inf")}, "limit", "must be a number"),
        ({"limit": float("inf")}, "limit", "must be a number"),
        ({"limit": 10**400}, "limit", "must be a number"),
        ({"on": 1}, "on", "must be true or false"),
        ({"nmae": "a"}, "nmae", "no such key"),
        ({"several": {}}, "several", "must be a list"),
        ({"several": [{"x": 1}, {"x": "no"}]}, "several[2].x", "must be a number"),
        ({"several": [{"x": 1, "colour": "green"}]}, "several[1].colour", "one of red, blue"),
        ({"several": [{"x": -1}]}, "several[1].x", "cannot be negative"),
        ({"inner": {}}, "inner.x", "is missing"),
        ({"inner": 5}, "inner", "must be a table"),
        ({"named": {"one": "1"}}, "named.one", "must be a whole number"),
    ],
)
def test_what_is_wrong_is_refused_with_the_way_to_it(change, key, why):
    with pytest.raises(ConfigError, match=why) as refused:
        build(Outer, {"name": "a", **change})
    assert refused.value.key == key


def test_a_partial_table_has_what_is_there_and_nothing_else():
    assert partial_of(Inner, {"colour": "blue"}, "link") == {"colour": Colour.BLUE}
    with pytest.raises(ConfigError) as refused:
        partial_of(Inner, {"y": 1}, "link")
    assert refused.value.key == "link.y"
