"""`muslin-cni`: one verb of one runtime, from its variables and standard input to its answer.

    environment, stdin -> request -> daemon -> result or error on stdout, exit code 0 or 1

A runtime reads standard output and the exit code; standard error stays empty unless a person calls
the plugin without a verb. The process ends without tearing the interpreter down: nothing is open
any more by then.
"""

from __future__ import annotations

import posix
import sys

from node.cni import notes, spec
from node.cni.client import PATIENCE, Refusal, ask
from node.cni.request import (
    Attachment,
    add_params,
    attachment_of,
    check_config,
    dns_of,
    kept_by,
    network_of,
    state_of,
    verb_of,
)
from node.cni.spec import CniError, Json
from node.cni.text import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

LARGEST_CONFIG = 16 << 20
LOOK_PATIENCE = 10.0
"""Seconds that STATUS and CHECK wait: they only look."""

HELP = """\
muslin-cni is the CNI plugin of Muslin: container runtimes call it, people do not.
Install it and its configuration with: muslin cni install
CNI versions: """

_CODES = {
    "not-running": spec.TRY_LATER,
    "timeout": spec.TRY_LATER,
    "connection-lost": spec.TRY_LATER,
    "busy": spec.TRY_LATER,
    "just-started": spec.TRY_LATER,
    "no-free-address": spec.TRY_LATER,
    "no-block": spec.TRY_LATER,
    "limit-reached": spec.TRY_LATER,
    "not-stored": spec.TRY_LATER,
    "no-permission": spec.NO_PERMISSION,
    "no-netns": spec.UNKNOWN_CONTAINER,
    "netns-in-use": spec.BAD_ENVIRONMENT,
    "bad-setting": spec.BAD_CONFIG,
    "bad-request": spec.BAD_CONFIG,
    "other-network": spec.BAD_CONFIG,
    "exists": spec.EXISTS,
    "not-attached": spec.NOT_AS_ADDED,
    "no-such-pod": spec.NOT_AS_ADDED,
    "bad-answer": spec.OTHER_VERSION,
    "unknown-method": spec.OTHER_VERSION,
    "unknown-version": spec.OTHER_VERSION,
}
"""What a runtime is told for the daemon's codes; `REFUSED` for all others."""


class Call:
    """One call of the plugin, once everything is known of it."""

    __slots__ = ("arguments", "attachment", "config", "network", "state", "version")

    def __init__(
        self, version: str, config: Json, attachment: Attachment, environ: Mapping[str, str]
    ) -> None:
        self.version = version
        self.config = config
        self.attachment = attachment
        self.network = network_of(config)
        self.state = state_of(config, environ)
        self.arguments = environ.get("CNI_ARGS", "")

    def ask(self, method: str, params: Json, patience: float = LOOK_PATIENCE) -> Json:
        """Ask the daemon.

        Raises:
            CniError: it refused, or there is none. Nothing else.
        """
        try:
            return ask(self.state, method, params, patience)
        except Refusal as refusal:
            raise told(refusal) from refusal

    def named(self) -> Json:
        """The attachment, as the daemon finds it."""
        attachment = self.attachment
        return {"container": attachment.container, "interface": attachment.interface}


def told(refusal: Refusal) -> CniError:
    """What a runtime is told when the daemon refused."""
    code = _CODES.get(refusal.code)
    if code is None:
        code = spec.NO_SUCH_ADDRESS if "address" in refusal.code else spec.REFUSED
    return CniError(code, refusal.message, refusal.fix)


def answer(environ: Mapping[str, str], read: Callable[[], bytes]) -> tuple[int, str]:
    """Do what a runtime asks.

    Args:
        environ: its variables.
        read: standard input, whole; may raise OSError.

    Returns:
        The exit code and what goes to standard output; that may be nothing.
    """
    version = spec.NEWEST
    try:
        verb = verb_of(environ)
        config = _config(read, verb)
        if verb == "VERSION":
            return 0, encode(spec.version_object(config.get("cniVersion")))
        version = spec.check_version(config.get("cniVersion"), verb)
        call = Call(version, config, attachment_of(environ, verb), environ)
        result = _DOING[verb](call)
    except CniError as error:
        return 1, encode(spec.error_object(version, error))
    return 0, encode(result) if result is not None else ""


def _config(read: Callable[[], bytes], verb: str) -> Json:
    try:
        given = read()
    except OSError as error:
        why = f"the configuration cannot be read from standard input: {error.strerror}"
        raise CniError(spec.IO_FAILURE, why) from error
    if verb == "VERSION" and not given.strip():
        return {}  # older runtimes say nothing at all
    try:
        config = decode(given.decode())
    except ValueError as error:
        why = f"the configuration is not JSON: {error}"
        raise CniError(spec.UNDECODABLE, why) from error
    if not isinstance(config, dict):
        raise CniError(spec.UNDECODABLE, "the configuration is not a JSON object")
    return config


def _add(call: Call) -> Json:
    params = add_params(call.config, call.attachment, call.arguments)
    previous, dns = spec.mapping(call.config, "prevResult"), dns_of(call.config)
    # Before anything is made: a result that cannot be passed on is no reason to clean up.
    for key in ("interfaces", "ips", "routes"):
        spec.objects(previous, key)
    pod = call.ask("pod.add", params, patience=PATIENCE)
    if pod.get("repeated"):
        attachment = call.attachment
        why = f"{attachment.interface} of {attachment.container} is attached already"
        raise CniError(spec.EXISTS, why, "call DEL first")
    return spec.add_result(call.version, pod, call.attachment.netns, previous, dns)


def _del(call: Call) -> None:
    params = {**call.named(), "network": call.network}
    try:
        ask(call.state, "pod.del", params)
    except Refusal as refusal:
        if refusal.code != "not-running":
            raise told(refusal) from refusal
        _note(call, params)


def _note(call: Call, params: Json) -> None:
    """Leave a note for the next daemon, and look whether it has come meanwhile."""
    attachment = call.attachment
    try:
        note = notes.leave(call.state, attachment.container, attachment.interface, call.network)
    except FileNotFoundError:
        return  # no such node: there is nothing of it here
    except OSError as error:
        why = f"no daemon is running, and no note for it can be left: {error.strerror}"
        raise CniError(spec.TRY_LATER, why, "start it with muslin up") from error
    try:
        ask(call.state, "pod.del", params)
    except Refusal:
        _unlink(call.config)
    else:
        notes.take_away(note)


def _unlink(config: Json) -> None:
    """Remove the link that ADD made, if the runtime says which. The next daemon looks again."""
    from node.cni import links  # noqa: PLC0415 - only while no daemon runs

    previous = config.get("prevResult")
    interfaces = previous.get("interfaces") if isinstance(previous, dict) else None
    for entry in interfaces if isinstance(interfaces, list) else []:
        name = entry.get("name") if isinstance(entry, dict) else None
        if links.is_host_end(name) and not entry.get("sandbox"):
            try:
                links.remove(str(name))
            except OSError:
                return  # not permitted, or another namespace: the daemon will do it


def _check(call: Call) -> None:
    previous = call.config.get("prevResult")
    if not isinstance(previous, dict):
        raise CniError(spec.BAD_CONFIG, "prevResult is missing", "give CHECK what ADD answered")
    attachment = call.attachment
    pod = call.ask("pod.check", {**call.named(), "netns": attachment.netns})
    spec.check_against(pod, previous, attachment.interface, attachment.netns)


def _gc(call: Call) -> None:
    params: Json = {"network": call.network, "keep": kept_by(call.config)}
    call.ask("pod.gc", params, patience=PATIENCE)


def _status(call: Call) -> None:
    check_config(call.config)
    try:
        ready = ask(call.state, "pod.ready", {}, LOOK_PATIENCE)
    except Refusal as refusal:
        raise CniError(spec.LIMITED, refusal.message, refusal.fix) from refusal
    if not ready.get("ready"):
        code = spec.LIMITED if ready.get("code") in _CUT_OFF else spec.NOT_AVAILABLE
        raise CniError(code, str(ready.get("why")), str(ready.get("fix") or ""))


_CUT_OFF = ("tun-gone", "kernel-silent", "identity-conflict", "node-left", "node-removed")
"""Reasons of the daemon for which present pods may not reach everything either."""

_DOING: dict[str, Callable[[Call], Json | None]] = {
    "ADD": _add,
    "DEL": _del,
    "CHECK": _check,
    "GC": _gc,
    "STATUS": _status,
}


def _read_stdin() -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := posix.read(0, 1 << 16):
        chunks.append(chunk)
        size += len(chunk)
        if size > LARGEST_CONFIG:
            raise CniError(spec.BAD_CONFIG, f"the configuration has over {LARGEST_CONFIG} bytes")
    return b"".join(chunks)


def _write(handle: int, text: str) -> bool:
    try:
        notes.write(handle, text)
    except OSError:
        return False
    return True


def _on_defect(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    """Instead of a traceback: the runtime reads JSON."""
    defect = CniError(spec.DEFECT, f"the plugin has a defect ({kind.__name__}: {error})")
    _write(1, encode(spec.error_object(spec.NEWEST, defect)) + "\n")


def main() -> int:
    """Answer the runtime that started this process; returns the exit code."""
    sys.excepthook = _on_defect
    names = ("utf-8", "surrogateescape")
    environ = {key.decode(*names): value.decode(*names) for key, value in posix.environ.items()}
    if not environ.get("CNI_COMMAND"):
        _write(2, f"{HELP}{', '.join(spec.VERSIONS)}\n")
    code, text = answer(environ, _read_stdin)
    if text and not _write(1, text + "\n"):
        return 1
    return code
