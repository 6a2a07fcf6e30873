"""`muslin up`: run the daemon in the foreground of whatever supervises it."""

from __future__ import annotations

import os

import click

from node.cli.context import Invocation, doing, pass_invocation, state_option


@click.command(
    epilog="""\b
Examples:
  muslin up
  muslin --state /srv/node2 up --listen 192.0.2.2:6875
  muslin up --advertise-route 192.168.7.0/24 --advertise-route 2001:db8:7::/48
  muslin up --egress masquerade
  muslin up --docker
  MUSLIN_LOG_LEVEL=debug muslin up"""
)
@click.option("--listen", metavar="ADDR:PORT", help="UDP address of the underlay.")
@click.option(
    "--advertise", metavar="ADDR:PORT", multiple=True, help="Where other nodes reach this one."
)
@click.option(
    "--advertise-route",
    "advertise_routes",
    metavar="PREFIX",
    multiple=True,
    help="A network behind this node that pods shall reach.",
)
@click.option(
    "--egress", metavar="HOW", help="How pods reach the world: none, or masquerade (needs nft)."
)
@click.option(
    "--docker",
    metavar="SOCKET",
    is_flag=False,
    flag_value="true",
    help="Be Docker's network driver muslin, on this socket or where Docker looks for it.",
)
@click.option("--lanes", metavar="N", help="Processes that carry packets, or auto.")
@click.option(
    "--passphrase-file", metavar="FILE|-", help="Passphrase of the authority's key, if it has one."
)
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
@click.option("--log-format", metavar="FORMAT", help="text or json.")
@click.option("--loop", metavar="LOOP", help="Event loop: uvloop or asyncio.")
@state_option()
@pass_invocation
def up(
    invocation: Invocation,
    listen: str | None,
    advertise: tuple[str, ...],
    advertise_routes: tuple[str, ...],
    egress: str | None,
    docker: str | None,
    lanes: str | None,
    passphrase_file: str | None,
    log_level: str | None,
    log_format: str | None,
    loop: str | None,
) -> int:
    """Run the daemon until SIGTERM, SIGINT or `muslin leave`. SIGHUP reads the settings again.

    If a daemon of this folder runs already, the new one takes its place while packets flow, and the
    old one ends: that is how to upgrade. It needs the same network namespace and the same listen,
    tun and offload.tun; otherwise, or when anything fails before it has taken over, the running
    one goes on and this one says why. One that a service manager looks after is restarted by that:
    systemctl restart muslin.

    Settings come from config.toml in the state folder, then MUSLIN_* variables, then flags. An
    authority's key that has a passphrase is locked until it is said: with --passphrase-file, or
    later with muslin authority unlock. Packets flow all the same.
    """
    from node import logs, preflight, privileges  # noqa: PLC0415 - the only verb that is the daemon
    from node.config import NodeConfig, load_config  # noqa: PLC0415
    from node.control.peers import let_in  # noqa: PLC0415
    from node.identity import load_node  # noqa: PLC0415

    folder = invocation.folder
    flags = {
        "listen": listen,
        "advertise": advertise,
        "advertise_routes": advertise_routes,
        "egress": egress,
        "docker": docker,
        "lanes": lanes,
        "passphrase_file": passphrase_file,
        "log.level": log_level,
        "log.format": log_format,
        "loop": loop,
    }

    def read_config() -> NodeConfig:
        return load_config(folder.config, os.environ, flags)

    with doing("cannot run the daemon"):
        privileges.keep_secrets()
        load_node(folder)
        config = read_config()
        preflight.check_privilege()
        preflight.check_tun()
        let_in(folder.path, config.control_group)
        privileges.narrow(folder.path, config.listen.port)
        from node import daemon  # noqa: PLC0415 - libraries may start threads: they come after

        logs.setup(config.log_level, config.log_format)
        daemon.run(config, folder, read_config)
    return 0
