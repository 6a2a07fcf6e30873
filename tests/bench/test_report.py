"""Tests of the tables and of the document."""

from __future__ import annotations

import json

from bench.report import Table, document, heading, machine, tables
from bench.summary import Sample, Summary
from tests.bench.samples import TITLES, samples

TABLE = Table("Title", ["", "one", "two"], [["row", "1.0", "22"], ["longer row", "10.0", "-"]])


def test_text_is_aligned():
    assert TABLE.text().splitlines() == [
        "Title",
        "             one  two",
        "row          1.0   22",
        "longer row  10.0    -",
    ]


def test_markdown_has_a_heading_and_as_many_columns_in_every_line():
    lines = TABLE.markdown().splitlines()
    assert lines[0] == "### Title"
    assert lines[2:5] == ["|  | one | two |", "| --- | --- | --- |", "| row | 1.0 | 22 |"]
    assert {line.count("|") for line in lines[2:]} == {4}


def test_what_was_measured_and_what_it_means():
    measured, compared, judged = tables(Summary(samples()), TITLES)
    assert measured.head[1:] == ["no overlay", "kernel VXLAN", "Muslin"]
    assert measured.rows[0] == [
        "TCP, 1 stream, Gbit/s",
        "12.00 (10.00 to 14.00)",
        "10.00 (9.00 to 10.00)",
        "5.00 (4.00 to 6.00)",
    ]
    assert measured.rows[1][1:] == ["-", "-", "2.00 (2.00 to 2.00)"]
    assert compared.rows == [
        ["TCP, 1 stream (more is better)", "0.42 (0.40 to 0.43)", "0.50 (0.40 to 0.67)"]
    ]
    assert judged.rows[0] == ["TCP 1 stream", "0.50, >= 0.38, goal 0.55: met"]


def test_without_muslin_nothing_is_compared():
    alone = [sample for sample in samples() if sample.contestant == "none"]
    assert [table.title for table in tables(Summary(alone), TITLES)] == [
        "Underlay veth: what was measured"
    ]


def test_one_round_has_no_spread():
    (table,) = tables(Summary([Sample("veth", 1, "none", {"tcp1": 3.0})]), TITLES)
    assert table.rows == [["TCP, 1 stream, Gbit/s", "3.00"]]


def test_the_document_is_json_and_brings_every_sample_back():
    contestants = {name: {"title": title} for name, title in TITLES.items()}
    text = json.dumps(document(samples(), on={}, seconds=2, contestants=contestants))
    found = json.loads(text)
    assert [Sample(**each) for each in found["samples"]] == samples()
    assert found["medians"]["veth"]["none"]["tcp1"]["median"] == 12.0
    tcp = next(each for each in found["targets"] if each["target"] == "TCP 1 stream")
    assert (tcp["contestant"], tcp["outcome"]) == ("vxlan", "met")


def test_the_heading_says_what_a_run_depends_on():
    on = machine()
    assert heading({**on, "congestion control": "cubic"}, 5, 2).endswith(
        "congestion control cubic (the kernel's default); medians of 5 interleaved rounds, "
        "2 s per measurement"
    )
    assert on["cores"].isdigit()
