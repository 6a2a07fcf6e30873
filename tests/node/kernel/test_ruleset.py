from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from node.kernel.elements import Difference, difference
from node.kernel.model import KernelSettings
from node.kernel.nft import Firewall
from node.kernel.rules import compose
from node.kernel.ruleset import RuleSet, following
from overlay.attachment import Attachment
from overlay.views import PodView
from tests.support.namespace import Namespace
from tests.support.privileged import NEEDS_KERNEL
from tests.support.views import node_snapshot, pod_view

pytestmark = [
    *NEEDS_KERNEL,
    pytest.mark.skipif(Firewall().why == "there is no nft", reason="needs nft"),
]

SETTINGS = KernelSettings("muslin0", 1500)
PODS = (
    pod_view(1, 1),
    pod_view(1, 2),
    replace(pod_view(1, 3), attachment=Attachment(handed=True)),
    pod_view(1, 4),
)


def rules(*pods: PodView) -> str:
    return compose(node_snapshot(1, pods), SETTINGS)


def nft(*words: str, given: str = "") -> str:
    return subprocess.run(
        ["nft", *words], input=given, capture_output=True, text=True, check=True
    ).stdout


def load(text: str) -> str:
    """Load it; what is listed then."""
    nft("-f", "-", given=text)
    return nft("-s", "list", "ruleset")


def loaded(text: str) -> str:
    """What is listed where nothing else was ever loaded."""
    with Namespace() as namespace:
        return namespace.run(load, text)


def between(before: str, after: str) -> Difference:
    change = difference(before, after)
    assert change is not None
    return change


@contextmanager
def opened(namespace: Namespace) -> Iterator[RuleSet]:
    ruleset = namespace.run(RuleSet)
    try:
        yield ruleset
    finally:
        ruleset.close()


def test_the_generation_counts_changes_of_anybody() -> None:
    with Namespace() as namespace, opened(namespace) as ruleset:
        before = ruleset.generation()
        assert before is not None
        assert ruleset.generation() == before
        namespace.run(load, "add table inet other\n")
        assert ruleset.generation() == following(before)


def test_elements_make_the_same_rules_as_loading_them() -> None:
    steps = [PODS[:1], PODS[:3], PODS[1:], PODS[3:], (), PODS]
    with Namespace() as namespace, opened(namespace) as ruleset:
        present = rules()
        namespace.run(load, present)
        for pods in steps:
            wanted = rules(*pods)
            generation = ruleset.generation()
            assert generation is not None
            assert ruleset.change(between(present, wanted), generation)
            assert ruleset.generation() == following(generation)
            assert namespace.run(nft, "-s", "list", "ruleset") == loaded(wanted)
            present = wanted


def test_nothing_is_built_on_rules_that_somebody_has_changed() -> None:
    with Namespace() as namespace, opened(namespace) as ruleset:
        namespace.run(load, rules())
        generation = ruleset.generation()
        assert generation is not None
        changed = namespace.run(load, "add table inet other\n")
        assert not ruleset.change(between(rules(), rules(*PODS)), generation)
        assert namespace.run(nft, "-s", "list", "ruleset") == changed
        # The socket goes on.
        assert ruleset.change(between(rules(), rules(*PODS)), following(generation))


def test_all_elements_are_changed_or_none() -> None:
    with Namespace() as namespace, opened(namespace) as ruleset:
        before = namespace.run(load, rules())
        generation = ruleset.generation()
        assert generation is not None
        change = between(rules(), rules(*PODS))
        impossible = Difference({("arp", "links"): frozenset({'"nobody"'})}, change.new)
        assert not ruleset.change(impossible, generation)
        assert namespace.run(nft, "-s", "list", "ruleset") == before
        assert ruleset.change(change, generation)
