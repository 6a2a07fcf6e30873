"""Tests of the picture of convergence."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from node.errors import NodeError
from node.sim.plot import LEFT, PLOT_HEIGHT, PLOT_WIDTH, TOP, picture, round_up, save
from overlay.sim.outcome import EventSummary

SVG = "{http://www.w3.org/2000/svg}"
CRASH = EventSummary("crash <b>", 5.0, 1, 1, (1.0, 2.0, 2.0, 4.0), ())
LOST = EventSummary("lost", 6.0, 1, 1, (1.0,), ("node2", "node3", "node4"))
CUT = EventSummary("cut", 7.0, 1, 1, (), ())


def curves(svg: str) -> list[str]:
    found = ET.fromstring(svg).iter(f"{SVG}path")
    return [path.get("d", "") for path in found if path.get("class") == "curve"]


def test_a_curve_climbs_by_the_share_of_nodes_at_each_moment():
    crash, lost, *names = curves(picture("title", [CRASH, LOST, CUT], "note"))
    bottom = TOP + PLOT_HEIGHT
    x = [LEFT + PLOT_WIDTH * seconds / 5.0 for seconds in (1.0, 2.0, 4.0)]
    y = [bottom - PLOT_HEIGHT * share for share in (0.25, 0.75, 1.0)]
    steps = "".join(f"H{at:.1f}V{to:.1f}" for at, to in zip(x, y, strict=True))
    assert crash == f"M{LEFT} {bottom}{steps}"
    assert lost == f"M{LEFT} {bottom}H{x[0]:.1f}V{y[0]:.1f}"
    assert len(names) == 2  # one short line beside each name; `cut` has no final state


def test_names_figures_and_what_is_missing_stand_beside_the_curves():
    texts = [one.text for one in ET.fromstring(picture("T", [CRASH, LOST], "N")).iter(f"{SVG}text")]
    assert {"T", "N", "crash <b>", "p50 2.00 s, p99 4.00 s", "lost"} <= set(texts)
    assert "p50 1.00 s, p99 1.00 s, 3 missing" in texts


def test_a_picture_of_nothing_is_a_picture():
    assert curves(picture("T", [], "N")) == []


@pytest.mark.parametrize(("value", "end"), [(0.0, 0.01), (0.011, 0.02), (4.0, 5.0), (51.0, 100.0)])
def test_the_scale_ends_at_a_round_number(value, end):
    assert round_up(value) == end


def test_the_name_of_the_file_says_what_it_becomes(tmp_path):
    save("<svg/>", tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text() == "<svg/>"
    with pytest.raises(NodeError, match=r"neither \.svg nor \.png"):
        save("<svg/>", tmp_path / "a.jpg")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch) -> Path:
    """A folder that is all of the PATH, besides what a shell script needs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def install(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    os.chmod(folder / name, 0o755)


def test_png_needs_a_converter_and_says_so(tools, tmp_path):
    with pytest.raises(NodeError, match="neither rsvg-convert nor cairosvg") as refused:
        save("<svg/>", tmp_path / "a.png")
    assert ".svg" in refused.value.fix


def test_png_is_what_the_converter_makes_of_the_picture(tools, tmp_path):
    install(tools, "rsvg-convert", 'read line; echo "$1 $2 $line" > "$4"')
    save("<svg/>\n", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_text() == "--format png <svg/>\n"


def test_the_other_converter_serves_where_the_first_is_missing(tools, tmp_path):
    install(tools, "cairosvg", 'read line; echo "$line" > "$4"')
    save("<svg/>\n", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_text() == "<svg/>\n"


def test_a_converter_that_fails_is_quoted(tools, tmp_path):
    install(tools, "rsvg-convert", "echo cannot draw >&2; exit 3")
    with pytest.raises(NodeError, match="rsvg-convert: cannot draw"):
        save("<svg/>", tmp_path / "a.png")
