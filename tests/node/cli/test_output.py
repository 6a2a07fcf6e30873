"""Tables, JSON and YAML."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.cli.output import duration, milliseconds, plain, share, size, table, to_json, to_yaml

cells = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60)


@given(st.lists(st.tuples(cells, cells, cells), max_size=6))
def test_columns_start_at_the_same_place_and_nothing_is_cut(rows) -> None:
    header, *lines = table(("name", "state", "pods"), rows).split("\n")
    state_at, pods_at = header.index("STATE"), header.index("PODS")
    for line, (name, state, pods) in zip(lines, rows, strict=True):
        assert line[:state_at].rstrip() == (name or "-")
        assert line[state_at:pods_at].rstrip() == (state or "-")
        assert line[pods_at:] == (pods or "-")


def test_a_table_without_rows_is_its_headers() -> None:
    assert table(("name", "state"), []) == "NAME   STATE"


def test_json_is_indented_or_one_line() -> None:
    value = [{"a": 1, "b": [True, None]}]
    assert json.loads(to_json(value)) == value
    assert to_json(value, compact=True) == '[{"a":1,"b":[true,null]}]'


def test_yaml_of_everything_that_occurs() -> None:
    value = [
        {
            "name": "web",
            "path": "/run/netns/web",
            "address": "10.244.0.2",
            "since": "2026-01-01T00:00:00Z",
            "blocks": ["10.244.0.0/24", "x"],
            "drops": {"no_route": 2, "1": 0},
            "empty": [],
            "none": {},
            "rtt": None,
            "up": True,
            "age": 1.5,
            "words": ["yes", "NO", "null", "12", "a: b", "- a", "#", "", " x", "ü\n"],
            "problems": [{"code": "no-block", "fix": ["a"]}, {"code": "x"}],
        },
        {"name": "db"},
    ]
    assert to_yaml(value) == (
        "- name: web\n"
        '  path: "/run/netns/web"\n'
        '  address: "10.244.0.2"\n'
        '  since: "2026-01-01T00:00:00Z"\n'
        "  blocks:\n"
        '    - "10.244.0.0/24"\n'
        "    - x\n"
        "  drops:\n"
        "    no_route: 2\n"
        '    "1": 0\n'
        "  empty: []\n"
        "  none: {}\n"
        "  rtt: null\n"
        "  up: true\n"
        "  age: 1.5\n"
        "  words:\n"
        '    - "yes"\n'
        '    - "NO"\n'
        '    - "null"\n'
        '    - "12"\n'
        '    - "a: b"\n'
        '    - "- a"\n'
        '    - "#"\n'
        '    - ""\n'
        '    - " x"\n'
        '    - "\\u00fc\\n"\n'
        "  problems:\n"
        "    - code: no-block\n"
        "      fix:\n"
        "        - a\n"
        "    - code: x\n"
        "- name: db"
    )


@pytest.mark.parametrize("value", [[], {}, None, "x", 5])
def test_yaml_of_a_scalar_or_nothing_is_json(value) -> None:
    assert to_yaml(value) in {"x", json.dumps(value)}


def test_the_unknown_is_shown_as_nothing() -> None:
    for show in (duration, milliseconds, size, share, plain):
        assert show(None) == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (60, "1m"), (3600, "1h"), (90061, "1d1h")]
)
def test_ages_have_two_units_at_most(seconds, text) -> None:
    assert duration(seconds) == text


def test_sizes_grow_through_the_units() -> None:
    assert [size(1 << (10 * power)) for power in range(6)] == [
        "1B", "1.0KiB", "1.0MiB", "1.0GiB", "1.0TiB", "1024.0TiB",
    ]  # fmt: skip
