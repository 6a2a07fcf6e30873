"""Tests of the command line."""

from __future__ import annotations

import os
import signal

import pytest

from bench import cli, compare


def test_a_comparison_is_what_happens_without_a_word(capsys):
    assert cli.main(["--list"]) == 0
    without = capsys.readouterr().out
    assert cli.main(["compare", "--list"]) == 0
    assert capsys.readouterr().out == without != ""


def test_errors_are_one_line(capsys):
    assert cli.main(["--only", "calico"]) == 1
    assert capsys.readouterr().err == (
        "bench: there is no contestant 'calico': "
        "choose from none, vxlan, wireguard-go, nebula, tinc, muslin\n"
    )


@pytest.mark.parametrize("word", ["cluster", "growth", "members", "path", "revocation"])
def test_each_word_has_its_own_help(word, capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main([word, "--help"])
    assert raised.value.code == 0
    assert f"usage: scripts/bench {word}" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_end_lets_everything_be_cleaned_up_even_if_it_comes_twice(
    number, monkeypatch, capsys
):
    cleaned: list[bool] = []
    before = signal.getsignal(number)

    def measure(_: object) -> None:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            os.kill(os.getpid(), number)
            cleaned.append(True)

    monkeypatch.setattr(compare, "measure", measure)
    assert cli.main([]) == 130
    assert cleaned
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err == "bench: interrupted; everything was taken down\n"
