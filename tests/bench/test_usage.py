"""Tests of what daemons use."""

from __future__ import annotations

import subprocess
import sys

from bench.usage import family, parse_rss, usage


def test_memory_is_in_bytes_and_none_for_what_has_none():
    assert parse_rss("VmPeak: 9 kB\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\n") == (204_800, 307_200)
    assert parse_rss("Name:\tkthreadd\n") == (0, 0)


def test_descendants_belong_to_the_family():
    parents = {10: 1, 11: 10, 12: 11, 20: 1, 21: 20}
    assert family([10], parents) == {10, 11, 12}
    assert family([10, 21], parents) == {10, 11, 12, 21}
    assert family([], parents) == set()


def test_a_process_is_billed_for_its_children():
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'print(flush=True); input()'],\n"
        "    stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True); input(); child.communicate()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        both, alone = usage([process.pid]), usage([child])
        process.communicate("\n")
    assert both.rss > alone.rss > 1 << 20
    assert both.rss_peak >= both.rss


def test_what_has_ended_costs_nothing():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert usage([process.pid]) == (0.0, 0, 0)
