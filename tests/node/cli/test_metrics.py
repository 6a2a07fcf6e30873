"""`muslin metrics` against a pretended daemon."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families


def test_the_text_is_on_stdout_and_nothing_else(muslin, daemon) -> None:
    ran = muslin("metrics")
    assert (ran.code, ran.err) == (0, "")
    names = {family.name for family in text_string_to_metric_families(ran.out)}
    assert {"muslin_certificate_expiry_seconds", "muslin_ledger_in"} <= names
    assert ran.out.endswith("# EOF\n")


def test_without_a_daemon_it_fails_in_one_line(muslin) -> None:
    ran = muslin("metrics")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("muslin: cannot tell the metrics: ")
