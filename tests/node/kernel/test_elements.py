from __future__ import annotations

import random
import struct
from dataclasses import replace

from node.kernel.elements import MOST, POD_SETS, Difference, difference, element_key, messages
from node.kernel.model import KernelSettings, veth_name
from node.kernel.rules import compose
from overlay.attachment import Attachment, HostPort
from overlay.views import PodView
from tests.support.views import node_snapshot, pod_view

SETTINGS = KernelSettings("muslin0", 1500)


def rules(*pods: PodView, settings: KernelSettings = SETTINGS) -> str:
    return compose(node_snapshot(1, pods), settings)


def test_a_pod_that_comes_is_its_elements() -> None:
    one, two = pod_view(1, 1), pod_view(1, 2)
    change = difference(rules(one), rules(one, two))
    assert change is not None
    assert change.gone == {}
    link = f'"{veth_name(two.name)}"'
    pair4, pair6 = f"{link} . {two.address}", f"{link} . {two.address6}"
    assert change.new == {
        ("inet", "links"): {link},
        ("inet", "pods4"): {pair4},
        ("inet", "pods6"): {pair6},
        ("arp", "links"): {link},
        ("arp", "pods4"): {pair4},
    }


def test_the_way_back_is_the_same_elements() -> None:
    handed = replace(pod_view(1, 2), attachment=Attachment(handed=True))
    for before, after in ((rules(), rules(handed)), (rules(pod_view(1, 1)), rules(handed))):
        there, back = difference(before, after), difference(after, before)
        assert there is not None
        assert back == Difference(there.new, there.gone)
        assert ("inet", "near6") in there.new


def test_what_else_differs_is_to_be_loaded() -> None:
    pod = pod_view(1, 1)
    before = rules(pod)
    assert difference(before, before) is None
    assert difference(before, rules(pod, settings=replace(SETTINGS, masquerade=True))) is None
    port = replace(pod, attachment=Attachment(ports=(HostPort("tcp", 80, 80),)))
    assert difference(before, rules(port)) is None
    assert difference(before, before.replace("drop", "accept", 1)) is None
    lan = "add element inet muslin lans4 { 192.0.2.0/24 }\n"
    assert difference(before, before + lan) is None


def test_too_much_is_to_be_loaded() -> None:
    def many(count: int) -> Difference | None:
        return difference(rules(), rules(*(pod_view(1, number) for number in range(1, count + 1))))

    assert many(MOST // 5) is not None
    assert many(MOST // 5 + 1) is None


def test_differences_lead_from_any_pods_to_any() -> None:
    rng = random.Random(1)
    pods = [pod_view(1, number) for number in range(1, 12)]
    held: dict[tuple[str, str], set[str]] = {}
    present = rules()
    for _ in range(200):
        wanted = rules(*(pod for pod in pods if rng.random() < 0.5))
        change = difference(present, wanted)
        assert (change is None) == (wanted == present)
        if change is not None:
            for name, gone in change.gone.items():
                assert gone <= held[name]
                held[name] -= gone
            for name, new in change.new.items():
                assert not new & held.setdefault(name, set())
                held[name] |= new
        present = wanted
        for (family, name), elements in held.items():
            inside = ", ".join(sorted(elements))
            line = f"add element {family} muslin {name} {{ {inside} }}\n"
            lines = [one for one in present.splitlines(keepends=True) if one[:12] == line[:12]]
            said = {one.partition(" { ")[0]: one.partition(" { ")[2] for one in lines}
            there = said.get(f"add element {family} muslin {name}", "")
            assert set(there[: -len(" }\n")].split(", ")) - {""} == elements


def test_a_batch_is_bound_to_its_generation() -> None:
    change = Difference({}, {("inet", "links"): frozenset({'"mus1"'})})
    said = messages(change, 0x01020304)
    kinds = []
    at = 0
    while at < len(said):
        length, kind, flags, number, _ = struct.unpack_from("=IHHII", said, at)
        assert number == len(kinds)
        kinds.append((kind, bool(flags & 4)))
        at += (length + 3) & ~3
    assert at == len(said)
    assert kinds == [(0x10, False), (0xA0C, True), (0x11, False)]
    assert struct.pack("=HH", 8, 1) + bytes([1, 2, 3, 4]) in said


def test_elements_are_their_parts() -> None:
    assert element_key('"mus1"') == b"mus1" + bytes(12)
    assert element_key('"mus1" . fe80::1') == b"mus1" + bytes(12) + b"\xfe\x80" + bytes(13) + b"\1"
    assert {"links", "pods4", "pods6", "near6"} == POD_SETS
