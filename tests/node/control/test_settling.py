"""Notes of deletions that no daemon heard: done before a pod is added, and only once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from node.cni import notes
from node.control.handlers import Handlers
from node.errors import NodeError
from node.state import StateFolder
from overlay.attachment import Attachment
from tests.support.daemon import FakeDaemon, pod_view

WEB = {"container": "c0ffee01", "interface": "eth0", "network": "pods"}

STUCK = Attachment(container="c0ffee02", network="pods")


@pytest.fixture
def daemon(tmp_path) -> FakeDaemon:
    """It has the pod that notes are about."""
    made = FakeDaemon()
    made.folder = StateFolder(tmp_path)
    have(made)
    return made


def have(daemon: FakeDaemon, owner: str = "cni", network: str = "pods") -> None:
    said = Attachment(container=WEB["container"], network=network)
    pod = replace(pod_view("web-0", 1, 9), owner=owner, attachment=said)
    daemon.engine.shot = replace(daemon.engine.shot, pods=(pod,))


def settle(daemon: FakeDaemon) -> None:
    async def main() -> None:
        daemon.handlers = handlers = Handlers(daemon)
        await handlers.pods.settling.settle()

    asyncio.run(main())


def removed(daemon: FakeDaemon) -> list[object]:
    return [call[1] for call in daemon.engine.calls if call[0] == "remove_pod"]


def left(daemon: FakeDaemon) -> int:
    return len(notes.found(str(daemon.folder.path)))


def test_what_was_deleted_is_deleted_once(daemon) -> None:
    notes.leave(str(daemon.folder.path), *WEB.values())
    settle(daemon)
    settle(daemon)
    assert removed(daemon) == ["web-0"]
    assert left(daemon) == 0


@pytest.mark.parametrize(("owner", "network"), [("docker", "pods"), ("cni", "other")])
def test_a_note_is_about_its_own_network_and_owner(daemon, owner, network) -> None:
    have(daemon, owner, network)
    notes.leave(str(daemon.folder.path), *WEB.values())
    settle(daemon)
    assert removed(daemon) == []
    assert left(daemon) == 0


def test_a_note_that_cannot_be_settled_stays(daemon) -> None:
    notes.leave(str(daemon.folder.path), *WEB.values())
    daemon.disk_full = True
    settle(daemon)
    assert left(daemon) == 1


def test_a_note_that_cannot_be_settled_keeps_no_other_from_it(daemon, monkeypatch) -> None:
    stuck = replace(pod_view("stuck", 1, 8), owner="cni", attachment=STUCK)
    daemon.engine.shot = replace(daemon.engine.shot, pods=(stuck, *daemon.engine.shot.pods))
    notes.leave(str(daemon.folder.path), STUCK.container, STUCK.interface, STUCK.network)
    notes.leave(str(daemon.folder.path), *WEB.values())

    async def refuse(name: str) -> None:
        if name == "stuck":
            raise NodeError("the kernel refused")

    monkeypatch.setattr(daemon, "detach_pod", refuse)
    settle(daemon)
    assert removed(daemon) == ["web-0"]
    assert left(daemon) == 1


def test_a_folder_that_cannot_be_read_stops_nothing(daemon, monkeypatch) -> None:
    def damaged(state: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(notes, "found", damaged)
    settle(daemon)


def test_an_old_note_does_not_delete_what_is_added_anew(daemon) -> None:
    notes.leave(str(daemon.folder.path), *WEB.values())

    async def main() -> None:
        daemon.handlers = handlers = Handlers(daemon)
        params = {"container": WEB["container"], "network": "pods", "netns": "new", "owner": "cni"}
        for repeated in (False, True):
            assert (await handlers.dispatch("pod.add", params))["repeated"] == repeated

    asyncio.run(main())
    assert removed(daemon) == ["web-0"]
    assert [pod.netns for pod in daemon.engine.shot.pods] == ["/run/netns/new"]


def test_a_note_that_another_request_has_settled_meanwhile_says_nothing_more(
    daemon, monkeypatch
) -> None:
    """It was read before that request added the container anew."""
    path = notes.leave(str(daemon.folder.path), *WEB.values())
    read = notes.found(str(daemon.folder.path))
    notes.take_away(path)
    monkeypatch.setattr(notes, "found", lambda _: read)
    settle(daemon)
    assert removed(daemon) == []
