"""Tests of what growth does without labs."""

from __future__ import annotations

from bench import growth
from bench.growth import (
    ROUTES,
    ROUTES_PER_BLOCK,
    WIDE_BLOCKS,
    WIDE_CIDR,
    Variant,
    last_blocks,
    run_family,
    tabulate,
)
from node.errors import NodeError

ONE, TWO = (Variant(name, ("a",), "b", "10.0.0.2", (1,)) for name in ("one", "two"))


def test_variants_are_interleaved_and_one_that_fails_is_tried_again(monkeypatch):
    order: list[str] = []
    broken = ["two"]

    def measure(variant: Variant, seconds: int) -> dict[str, float]:
        order.append(variant.label)
        if variant.label in broken:
            broken.clear()
            raise NodeError("no answer")
        return {"gbit": float(len(order)), "cpu": 1.0, "rtt-p99": 2.0}

    monkeypatch.setattr(growth, "measure", measure)
    said: list[str] = []
    seen = run_family([ONE, TWO], 2, 1, said.append)
    assert order == ["one", "two", "two", "one", "two"]
    assert [each["gbit"] for each in seen["one"]] == [1.0, 4.0]
    assert "two: no answer" in said


def test_the_table_has_a_row_per_variant_also_for_one_without_figures():
    seen = {"one": [{"gbit": 4.0, "cpu": 1.5, "rtt-p99": 7.0}] * 2, "two": []}
    table = tabulate(seen)
    assert table.rows[0][:3] == ["one", "4.00 (4.00 to 4.00)", "1.50 (1.50 to 1.50)"]
    assert table.rows[1] == ["two", "-", "-", "-"]


def test_the_cluster_is_wide_enough_for_the_most_routes():
    assert WIDE_CIDR.endswith("/11")
    wanted = max(ROUTES) // ROUTES_PER_BLOCK
    assert wanted < WIDE_BLOCKS <= 1 << 16
    blocks = last_blocks(WIDE_BLOCKS, wanted)
    assert len(set(blocks)) == wanted
    assert max(blocks) == WIDE_BLOCKS - 1
