from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from node.kernel import netns
from node.kernel.errors import KernelError
from node.kernel.overlap import HostRoute
from node.kernel.pods import LINK_LOST
from node.kernel.troubles import detached, overlap, refused, silent, tun_gone
from overlay.attachment import Attachment
from overlay.views import Problem
from tests.support.views import pod_view

POD = pod_view(1, 1, netns="/run/netns/nowhere")
ERROR = KernelError("file exists", "remove the other one")


def test_each_says_what_and_why_and_what_to_do() -> None:
    route = HostRoute(ip_network("192.168.0.0/16"), "eth1")
    for problem in (
        refused([ERROR]),
        silent(ERROR),
        tun_gone("muslin0"),
        overlap(ip_network("192.168.7.0/24"), route),
        detached(POD, ERROR),
    ):
        assert all((problem.code, problem.what, problem.why, problem.fix)), problem


def test_refusals_are_counted_and_the_first_is_shown() -> None:
    assert refused([ERROR, KernelError("no")]) == Problem(
        "kernel-refused",
        "the kernel lacks 2 parts of the network",
        "file exists",
        "remove the other one",
    )


def test_a_pod_is_lost_with_its_namespace_and_detached_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert detached(POD, ERROR).code == "pod-lost"
    monkeypatch.setattr(netns, "is_gone", lambda _: False)
    assert detached(POD, ERROR).code == "pod-detached"


def test_a_pod_that_was_handed_over_is_lost_with_its_link() -> None:
    handed = replace(POD, attachment=Attachment(handed=True))
    assert detached(handed, ERROR).code == "pod-detached"
    lost = detached(handed, KernelError("its link is gone", "connect it again", LINK_LOST))
    assert (lost.code, lost.what) == ("pod-lost", "pod pod11 has lost its link")
