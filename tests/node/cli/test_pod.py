"""`muslin pod` and `muslin exec` against a pretended daemon."""

from __future__ import annotations

import pytest

from node.errors import NodeError


def test_a_pod_is_added_and_deleted(muslin, daemon) -> None:
    ran = muslin("pod", "add", "new")
    assert ran.code == 0
    assert ran.out == (
        "pod new added: 10.244.0.9 fd00::9 in /run/netns/muslin-00112233-node1-new\n"
    )
    assert muslin("pod", "del", "new").out == "pod new deleted\n"
    assert daemon.attached == []


def test_namespace_and_address_can_be_chosen(muslin, daemon, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    muslin("pod", "add", "a", "--netns", "/proc/7/ns/net", "--ip", "10.244.0.9")
    muslin("pod", "add", "b", "--netns", "./here")
    netns = {call[1]: call[2] for call in daemon.engine.calls}
    assert netns == {"a": "/proc/7/ns/net", "b": str(tmp_path / "here")}
    assert str(daemon.engine.calls[0][3]) == "10.244.0.9"


def test_a_refusal_is_one_line(muslin, daemon) -> None:
    ran = muslin("pod", "add", "web")
    assert ran.code == 1
    assert ran.err == "muslin: cannot add pod web: pod web exists: choose another name\n"
    daemon.attach_error = NodeError("there is no namespace x", "make one", "no-netns")
    assert muslin("pod", "add", "x").err == (
        "muslin: cannot add pod x: there is no namespace x: make one\n"
    )


def test_a_pod_of_another_node_cannot_be_deleted_here(muslin, daemon) -> None:
    assert "pod db is on node2: run the command on node2" in muslin("pod", "del", "db").err


@pytest.fixture
def executed(monkeypatch) -> list[tuple[str, list[str]]]:
    """Commands that would have replaced this process."""
    calls: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(
        "node.kernel.netns.execute", lambda netns, argv: calls.append((netns, list(argv)))
    )
    return calls


@pytest.mark.parametrize("dashes", [("--",), ()])
def test_a_command_runs_in_the_namespace_with_all_its_options(
    muslin, daemon, executed, dashes
) -> None:
    muslin("exec", "web", *dashes, "ping", "-c", "1", "--help", "x")
    where = "/run/netns/muslin-node1-web"
    assert executed == [(where, ["ping", "-c", "1", "--help", "x"])]


def test_a_namespace_that_only_the_daemon_sees_is_entered_through_it(
    muslin, daemon, executed, monkeypatch
) -> None:
    seen = f"/proc/{daemon.facts().pid}/root{'/run/netns/muslin-node1-web'}"
    monkeypatch.setattr("node.kernel.netns.exists", lambda path: path == seen)
    muslin("exec", "web", "true")
    assert executed == [(seen, ["true"])]


def test_a_pod_elsewhere_or_nowhere_is_refused(muslin, daemon, executed) -> None:
    ran = muslin("exec", "db", "--", "true")
    assert ran.err == "muslin: cannot run a command in pod db: pod db is on node2: run it there\n"
    assert "there is no pod no" in muslin("exec", "no", "--", "true").err
    assert executed == []


def test_interface_ports_and_limits_are_asked_for_and_shown(muslin, daemon) -> None:
    ran = muslin(
        "pod", "add", "shop", "--interface", "net1", "--ingress", "10M", "--egress", "800kbit",
        "--port", "8080:80", "--port", "[::1]:53:5353/udp",
    )  # fmt: skip
    assert ran.code == 0
    said = next(pod for pod in daemon.engine.shot.pods if pod.name == "shop").attachment
    assert said.interface == "net1"
    assert [str(port) for port in said.ports] == ["8080:80/tcp", "[::1]:53:5353/udp"]
    assert (said.ingress.bits, said.egress.bits) == (10_000_000, 800_000)
    shown = muslin("get", "pods", "shop", "-o", "wide").out
    for text in ("net1", "10,000,000", "800,000", "8080:80/tcp [::1]:53:5353/udp", "cli"):
        assert text in shown


@pytest.mark.parametrize(
    "words",
    [
        ("--port", "80"),
        ("--port", "80:80/icmp"),
        ("--port", "a:80:80"),
        ("--ingress", "fast"),
        ("--egress", "-1"),
        ("--egress", "10 M"),
    ],
)
def test_what_is_no_port_or_rate_is_wrong_usage(muslin, daemon, words) -> None:
    assert muslin("pod", "add", "x", *words).code == 2
    assert daemon.engine.calls == []


def test_a_rate_or_port_out_of_bounds_is_one_line(muslin, daemon) -> None:
    for words in (("--egress", "1"), ("--port", "0:80"), ("--port", "999.1.1.1:80:80")):
        ran = muslin("pod", "add", "x", *words)
        assert ran.code == 1
        assert ran.err.count("\n") == 1
    assert daemon.engine.calls == []


@pytest.mark.parametrize(
    "words", [("", "--ip", "10.244.0.9"), ("x", "--netns", ""), ("x", "--interface", "")]
)
def test_what_a_script_has_left_empty_is_wrong_usage(muslin, daemon, words) -> None:
    ran = muslin("pod", "add", *words)
    assert ran.code == 2
    assert "it is empty; leave it out, or say which" in ran.err
    assert daemon.attached == []
