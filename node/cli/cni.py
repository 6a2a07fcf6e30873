"""`muslin cni install` and `muslin cni uninstall`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from node.cli.context import Invocation, doing, pass_invocation, state_option

BIN_DIR: Final = "/opt/cni/bin"
CONF_DIR: Final = "/etc/cni/net.d"

Command = TypeVar("Command", bound=Callable[..., Any])


def _folders(command: Command) -> Command:
    """The two folders, the same for both verbs."""
    for option in (
        click.option(
            "--conf-dir",
            metavar="DIR",
            default=CONF_DIR,
            show_default=True,
            help="Where the runtime looks for network configurations.",
        ),
        click.option(
            "--bin-dir",
            metavar="DIR",
            default=BIN_DIR,
            show_default=True,
            help="Where the runtime looks for plugins.",
        ),
    ):
        command = option(command)
    return command


@click.group(
    no_args_is_help=False,
    epilog="""\b
Examples:
  muslin cni install
  muslin cni uninstall""",
)
@state_option()
def cni() -> None:
    """Let containerd, CRI-O, podman and others make pods of their containers."""


@cni.command(
    short_help="Install the plugin and its configuration.",
    epilog="""\b
Examples:
  muslin cni install                                 as most runtimes look for it
  muslin cni install --bin-dir /usr/lib/cni          for Debian's containerd and podman
  muslin --state /srv/node2 cni install --network pods2 --conf-dir /srv/node2/net.d
  muslin cni install --remove                        the same as muslin cni uninstall""",
)
@_folders
@click.option("--network", metavar="NAME", default="muslin", show_default=True, help="Its name.")
@click.option(
    "--portmap/--no-portmap",
    default=None,
    help="Publish ports by the standard portmap plugin, or by the daemon.  "
    "[default: by portmap if it is in the folder of plugins]",
)
@click.option("--remove", is_flag=True, help="Remove both instead.")
@state_option()
@pass_invocation
def install(
    invocation: Invocation,
    bin_dir: str,
    conf_dir: str,
    network: str,
    portmap: bool | None,
    remove: bool,
) -> int:
    """Write the plugin muslin-cni and the network 10-muslin.conflist, for the container runtime.

    Both at once or neither; what is there and not ours is left alone. Doing it again updates them.
    The plugin runs with the interpreter of this command: install again after moving it.
    """
    from node.cni import install as installer  # noqa: PLC0415 - imports subprocess
    from node.cni.spec import is_identifier  # noqa: PLC0415

    if remove:
        return _remove(bin_dir, conf_dir)
    if not is_identifier(network):
        why = f"--network: {network!r} must be letters, digits and _ . -, beginning with neither"
        raise click.UsageError(f"{why} of the last three")
    with doing("cannot install the CNI plugin"):
        done = installer.install(
            Path(bin_dir).absolute(),
            Path(conf_dir).absolute(),
            state=str(invocation.folder.path),
            network=network,
            portmap=portmap,
        )
    publishing = "the plugin portmap" if done.portmap else "the daemon"
    click.echo(f"{done.program} and {done.config} installed: {publishing} publishes ports")
    if done.before:
        names = ", ".join(done.before)
        click.echo(f"note: runtimes take the first by name, and {names} is in front", err=True)
    return 0


@cni.command(
    short_help="Remove the plugin and its configuration.",
    epilog="""\b
Examples:
  muslin cni uninstall
  muslin cni uninstall --bin-dir /usr/lib/cni""",
)
@_folders
@state_option()
def uninstall(bin_dir: str, conf_dir: str) -> int:
    """Remove what install wrote, and nothing else. Delete the containers that use it first."""
    return _remove(bin_dir, conf_dir)


def _remove(bin_dir: str, conf_dir: str) -> int:
    from node.cni import install as installer  # noqa: PLC0415 - imports subprocess

    with doing("cannot remove the CNI plugin"):
        removed = installer.remove(Path(bin_dir).absolute(), Path(conf_dir).absolute())
    if removed:
        click.echo(f"{' and '.join(map(str, removed))} removed")
    else:
        click.echo(f"nothing of Muslin is in {bin_dir} and {conf_dir}")
    return 0
