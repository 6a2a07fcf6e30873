"""Tests of what pictures have in common."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from node.svg import STYLE, document, text


def test_a_document_is_well_formed_and_names_what_it_shows():
    words = 'a < b & "c"'
    root = ET.fromstring(document((100, 50.5), "A <picture>", [text(1, 2, "soft", words)]))
    assert root.get("aria-label") == "A <picture>"
    assert (root.get("width"), root.get("height")) == ("100", "50.5")
    assert root[-1].text == words


def test_text_begins_or_ends_where_it_is_put():
    assert "text-anchor" not in text(1.6, 2, "soft", "x")
    assert 'x="2"' in text(1.6, 2, "soft", "x")
    assert 'text-anchor="end"' in text(1, 2, "soft", "x", end=True)


def test_the_style_is_readable_on_dark_paper_too():
    assert "prefers-color-scheme: dark" in STYLE
