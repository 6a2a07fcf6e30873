from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from node.kernel.model import KernelSettings
from node.kernel.nft import Firewall
from node.kernel.rules import compose
from node.kernel.watch import NETLINK_NETFILTER, KernelWatch
from node.kernel.watch import RULES as RULES_GROUP
from tests.support.namespace import Namespace
from tests.support.privileged import NEEDS_KERNEL
from tests.support.views import node_snapshot, pod_view

NFT = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
SNAPSHOT = node_snapshot(1, (pod_view(1, 1),))
RULES = compose(SNAPSHOT, KernelSettings("muslin0", 1500))


def needs_nft(test: object) -> object:
    for mark in (*NEEDS_KERNEL, pytest.mark.skipif(NFT is None, reason="needs nft")):
        test = mark(test)
    return test


def test_a_machine_without_nft_is_told_and_nothing_is_tried() -> None:
    firewall = Firewall("")
    firewall.hold(RULES)
    assert firewall.why == "there is no nft"
    assert firewall.counts() == {}
    firewall.remove()


def test_a_kernel_that_refuses_is_told_in_one_line(tmp_path: Path) -> None:
    tool = tmp_path / "nft"
    tool.write_text("#!/bin/sh\necho 'Error: Could not process rule: no such file' >&2\nexit 1\n")
    tool.chmod(0o700)
    firewall = Firewall(str(tool))
    firewall.hold(RULES)
    assert firewall.why == "Error: Could not process rule: no such file"
    assert firewall.counts() == {}


def test_a_listing_that_broke_off_is_none(tmp_path: Path) -> None:
    tool = tmp_path / "nft"
    tool.write_text("#!/bin/sh\necho '{\"nftables\": ['\nexit 1\n")
    tool.chmod(0o700)
    assert Firewall(str(tool)).listing("-j", "list", "chains") == ""


def test_a_tool_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    firewall = Firewall(str(tmp_path / "nft"))
    firewall.hold(RULES)
    assert "No such file" in firewall.why


def listed() -> str:
    assert NFT is not None
    done = subprocess.run([NFT, "list", "ruleset"], capture_output=True, text=True, check=True)
    return done.stdout


def load(rules: str) -> None:
    assert NFT is not None
    subprocess.run([NFT, "-f", "-"], input=rules, text=True, check=True)


@needs_nft
def test_rules_stand_until_they_are_removed() -> None:
    with Namespace() as namespace:
        firewall = Firewall()
        namespace.run(firewall.hold, RULES)
        assert firewall.why == ""
        assert namespace.run(listed).count("table ") == 2
        assert namespace.run(firewall.counts) == {"spoofed": 0, "underlay": 0, "outside": 0}
        namespace.run(firewall.remove)
        assert namespace.run(listed) == ""


@needs_nft
def test_what_somebody_else_changed_is_noticed_and_put_right() -> None:
    with Namespace() as namespace:
        firewall = Firewall()
        watch = namespace.run(KernelWatch, NETLINK_NETFILTER, RULES_GROUP)
        assert namespace.run(firewall.hold, RULES) is False, "nobody had changed them"
        wanted = namespace.run(listed)
        for harm in (
            "flush ruleset",
            "flush chain inet muslin from_pod",
            "flush set inet muslin links",
            "delete table arp muslin",
            "add rule inet muslin from_pod accept",
        ):
            watch.hear()
            namespace.run(load, harm)
            assert namespace.run(listed) != wanted
            assert watch.hear().here, harm
            assert namespace.run(firewall.hold, RULES) is True, harm
            assert namespace.run(listed) == wanted, harm
        watch.close()


@needs_nft
def test_rules_that_stand_are_not_loaded_again() -> None:
    with Namespace() as namespace:
        firewall = Firewall()
        namespace.run(firewall.hold, RULES)
        watch = namespace.run(KernelWatch, NETLINK_NETFILTER, RULES_GROUP)
        assert namespace.run(firewall.hold, RULES) is False
        assert not watch.hear().here
        watch.close()


def with_pods(*numbers: int) -> str:
    pods = tuple(pod_view(1, number) for number in numbers)
    return compose(node_snapshot(1, pods), KernelSettings("muslin0", 1500))


class Counting(Firewall):
    """Counts how often nft is run."""

    runs = 0

    def _run(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        self.runs += 1
        return super()._run(*words, given=given)


@needs_nft
def test_pods_that_come_and_go_take_no_run_of_nft() -> None:
    with Namespace() as namespace, Namespace() as fresh:
        firewall = Counting()
        namespace.run(firewall.hold, with_pods())
        first = firewall.runs
        for numbers in ((1,), (1, 2, 3), (3,), (4, 5)):
            assert namespace.run(firewall.hold, with_pods(*numbers)) is False
            assert namespace.run(firewall.hold, with_pods(*numbers)) is False
            assert firewall.runs == first
            fresh.run(load, with_pods(*numbers))
            assert namespace.run(listed) == fresh.run(listed)


@needs_nft
def test_what_somebody_changed_after_pods_came_is_put_right() -> None:
    with Namespace() as namespace:
        firewall = Firewall()
        namespace.run(firewall.hold, with_pods(1))
        namespace.run(firewall.hold, with_pods(1, 2))
        wanted = namespace.run(listed)
        for harm in ("flush ruleset", "flush set inet muslin pods4", "delete table arp muslin"):
            namespace.run(load, harm)
            assert namespace.run(firewall.hold, with_pods(1, 2)) is True, harm
            assert namespace.run(listed) == wanted, harm
            # Found together with a pod that comes, it is put right before that pod is there.
            namespace.run(load, harm)
            namespace.run(firewall.hold, with_pods(1, 2, 3))
            namespace.run(firewall.hold, with_pods(1, 2))
            assert namespace.run(listed) == wanted, harm


@needs_nft
def test_what_others_do_with_their_own_is_no_harm() -> None:
    with Namespace() as namespace:
        firewall = Counting()
        namespace.run(firewall.hold, with_pods(1))
        namespace.run(firewall.hold, with_pods(1, 2))
        for name in ("one", "two"):
            namespace.run(load, f"add table inet {name}\n")
            assert namespace.run(firewall.hold, with_pods(1, 2)) is False
            before = firewall.runs
            assert namespace.run(firewall.hold, with_pods(1, 2)) is False
            assert firewall.runs == before, "what is known to stand is not asked for"
        assert "set links" in namespace.run(listed)


@needs_nft
def test_rules_of_others_are_left_alone() -> None:
    with Namespace() as namespace:
        namespace.run(load, "add table inet others\nadd chain inet others c\n")
        firewall = Firewall()
        namespace.run(firewall.hold, RULES)
        namespace.run(firewall.remove)
        assert namespace.run(listed).startswith("table inet others")


@needs_nft
def test_the_kernel_can_be_asked_without_anything_being_done() -> None:
    with Namespace() as namespace:
        firewall = Firewall()
        assert namespace.run(firewall.why_not, RULES) == ""
        assert namespace.run(listed) == ""
        assert "Error" in namespace.run(firewall.why_not, "add rule inet nowhere chain accept\n")
    assert Firewall("").why_not(RULES) == "there is no nft"
