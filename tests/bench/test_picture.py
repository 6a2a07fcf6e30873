"""Tests of the picture: it is SVG, and its bars are as long as they should be."""

from __future__ import annotations

from xml.etree import ElementTree

from bench.picture import BAR, picture
from bench.summary import Sample, Summary
from tests.bench.samples import TITLES, samples

SVG = "{http://www.w3.org/2000/svg}"


def drawn(summary: Summary, titles: dict[str, str] = TITLES) -> ElementTree.Element:
    return ElementTree.fromstring(picture(summary, titles, ["on this", "so often"]))


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(each.itertext()) for each in root.iter(f"{SVG}text")]


def test_bars_share_a_scale_and_muslin_has_its_colour():
    root = drawn(Summary(samples()))
    first = next(root.iter(f"{SVG}g"))
    bars = {each.get("class"): [] for each in first.iter(f"{SVG}rect")}
    for each in first.iter(f"{SVG}rect"):
        bars[each.get("class")].append(float(each.get("width", 0)))
    assert bars["other"] == [float(BAR), round(BAR * 10 / 12, 1)]
    assert bars["ours"] == [round(BAR * 5 / 12, 1)]


def test_values_names_and_ratios_are_written_out():
    said = texts(drawn(Summary(samples())))
    assert {"no overlay", "kernel VXLAN", "Muslin", "12.00", "on this", "so often"} <= set(said)
    assert "Muslin: 0.50\u00d7" in said
    assert "Muslin: 0.42\u00d7" in said


def test_panels_that_nobody_has_figures_for_are_left_out():
    assert len(list(drawn(Summary(samples())).iter(f"{SVG}g"))) == 2
    some = Summary([*samples("veth"), *samples("wire")])
    assert len(list(drawn(some).iter(f"{SVG}g"))) == 3
    assert any("single frames" in text for text in texts(drawn(some)))


def test_large_ratios_have_few_digits_and_names_are_escaped():
    some = [Sample("veth", 1, "a&b", {"tcp1": 0.2}), Sample("veth", 1, "muslin", {"tcp1": 5.0})]
    said = texts(drawn(Summary(some), {"a&b": "a & <b>", "muslin": "Muslin"}))
    assert {"a & <b>", "Muslin: 25\u00d7"} <= set(said)


def test_it_fits_light_and_dark_paper():
    assert "prefers-color-scheme: dark" in picture(Summary(samples()), TITLES, [])
