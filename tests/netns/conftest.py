"""Labs to test in, and the proof that the machine itself is left alone.

A lab takes seconds to make. Tests that leave a lab as they found it share `lab`; others make their
own. Whatever ends a test, its labs are taken down: by the fixtures, after Ctrl-C as well. What a
killed run left is removed by the next one.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Generator, Iterator

import pytest

from tests.support.bed import Bed, a_spare_namespace, making_a_bed
from tests.support.labs import OWN_ROOT, Lab, LabMaker, remove_leftovers
from tests.support.machines import Machine, Yard, YardMaker

LOG_TAIL = 40
"""Lines of each daemon's log that are shown with a failure."""


@pytest.fixture(scope="session")
def _clean_machine() -> Iterator[None]:
    """Nothing is left of labs, and the machine's own namespace is as it was."""
    remove_leftovers()
    before = _machine()
    # To be terminated is like Ctrl-C: fixtures take down what they made.
    was = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, was)
    left = remove_leftovers()
    assert not left, "not taken down by the fixtures that made them"
    assert _machine() == before


def _machine() -> str:
    """Links, addresses, routes and rules of the namespace that tests are started in."""
    said = [
        subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=True).stdout
        for words in (
            "-o link",
            "-o addr",
            "-4 route show table all",
            "-6 route show table all",
            "-4 rule",
            "-6 rule",
        )
    ]
    return re.sub(r"(valid_lft|preferred_lft|expires) \d+sec", "", "".join(said))


@pytest.fixture(scope="session")
def _session_labs(_clean_machine: None) -> Iterator[LabMaker]:
    with LabMaker(OWN_ROOT) as maker:
        yield maker


@pytest.fixture(scope="session")
def lab(_session_labs: LabMaker) -> Lab:
    """Three nodes with two pods each, underlay IPv4 with MTU 1500. Leave it as you found it."""
    return _session_labs(nodes=3, pods=2)


@pytest.fixture(scope="session")
def lab6(_session_labs: LabMaker) -> Lab:
    """Two nodes with one pod each, underlay IPv6 with MTU 1500. Leave it as you found it."""
    return _session_labs(nodes=2, pods=1, underlay="ipv6")


@pytest.fixture(scope="module")
def make_module_lab(_clean_machine: None) -> Iterator[LabMaker]:
    """Makes labs that all tests of a module share."""
    with LabMaker(OWN_ROOT) as maker:
        yield maker


@pytest.fixture
def make_lab(_clean_machine: None) -> Iterator[LabMaker]:
    """Makes labs for one test."""
    with LabMaker(OWN_ROOT) as maker:
        yield maker


@pytest.fixture(scope="module")
def make_module_yard(_clean_machine: None) -> Iterator[YardMaker]:
    """Makes machines without daemons that all tests of a module share."""
    with YardMaker() as maker:
        yield maker


@pytest.fixture
def make_yard(_clean_machine: None) -> Iterator[YardMaker]:
    """Makes machines without daemons for one test."""
    with YardMaker() as maker:
        yield maker


@pytest.fixture(scope="module")
def yard(make_module_yard: YardMaker) -> Yard:
    """Three machines that all tests of a module share."""
    return make_module_yard(3)


@pytest.fixture(scope="module")
def node1(yard: Yard) -> Machine:
    """The first of them: founded the cluster, has pod `web`."""
    founder = yard.found()
    founder.says("pod", "add", "web")
    return founder


@pytest.fixture(scope="module")
def node2(yard: Yard, node1: Machine) -> Machine:
    """The second: a member."""
    return yard.join(yard.machines[1])


@pytest.fixture(scope="module")
def made_bed() -> Iterator[Bed]:
    """Two nodes and three pods, as the tests of a module left them."""
    with making_a_bed() as bed:
        yield bed


@pytest.fixture
def bed(made_bed: Bed) -> Bed:
    """Both nodes settled, whatever the test before did to them."""
    made_bed.settle()
    return made_bed


@pytest.fixture
def spare() -> Iterator[str]:
    """An empty namespace."""
    with a_spare_namespace() as path:
        yield path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with each failure what the daemons of its labs said last."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            for lab in _labs(value):
                if isinstance(lab, Lab | Yard):
                    for node, log in lab.logs().items():
                        tail = "\n".join(log.splitlines()[-LOG_TAIL:])
                        report.sections.append((f"{lab.name}: log of {node}", tail))
    return report


def _labs(value: object) -> list[object]:
    match value:
        case LabMaker():
            return list(value.labs)
        case YardMaker():
            return list(value.yards)
        case _:
            return [value]
