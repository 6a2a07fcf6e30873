"""`muslin lab`: a whole cluster of real daemons on this machine, in network namespaces."""

from __future__ import annotations

import os

import click

from node.cli.context import CliError, CommandInside, Json, doing, objects
from node.cli.output import plain, table, to_json, to_yaml
from node.cli.progress import Progress

name_option = click.option(
    "--name", metavar="NAME", default="lab", show_default=True, help="Which lab."
)


@click.group(
    no_args_is_help=False,
    epilog="""\b
Examples:
  muslin lab up --nodes 3 --pods 2
  muslin lab exec node1 -- muslin get nodes
  muslin lab exec node1-pod1 -- ping -c 3 10.244.1.2
  muslin lab cut node1 node2
  muslin lab down""",
)
def lab() -> None:
    """Run a whole cluster on this machine, in namespaces of its own. Needs root."""


@lab.command(
    short_help="Build a lab, and wait until all see each other.",
    epilog="""\b
Examples:
  muslin lab up
  muslin lab up --nodes 8 --pods 2 --name big
  muslin lab up --underlay ipv6 --mtu 1400""",
)
@click.option("--nodes", metavar="N", type=int, default=3, show_default=True, help="How many.")
@click.option("--pods", metavar="N", type=int, default=2, show_default=True, help="On each node.")
@name_option
@click.option(
    "--underlay",
    type=click.Choice(("ipv4", "ipv6")),
    default="ipv4",
    show_default=True,
    help="What the daemons speak among themselves.",
)
@click.option(
    "--mtu", metavar="BYTES", type=int, default=1500, show_default=True, help="Of the underlay."
)
@click.option(
    "--cidr", metavar="CIDR", default="10.244.0.0/16", show_default=True, help="Of the pods."
)
def up(nodes: int, pods: int, name: str, underlay: str, mtu: int, cidr: str) -> int:
    """Build a lab; it is up when every node sees every other node and every pod."""
    from node.lab.build import lab_up  # noqa: PLC0415 - netlink, which no other verb needs
    from node.lab.verbs import lab_status  # noqa: PLC0415

    # Of the caller's own settings only this one makes sense for all daemons of a lab at once.
    lanes = os.environ.get("MUSLIN_LANES")
    with doing(f"cannot bring up lab {name}"):
        with Progress("wiring namespaces") as progress:
            lab_up(
                name,
                nodes,
                pods,
                underlay=underlay,
                mtu=mtu,
                cidr=cidr,
                settings={"MUSLIN_LANES": lanes} if lanes else {},
                progress=progress.say,
            )
        click.echo(_tables(lab_status(name)))
    return 0


@lab.command(
    epilog="""\b
Examples:
  muslin lab status
  muslin lab status -o json"""
)
@name_option
@click.option("-o", "--output", type=click.Choice(("json", "yaml")), help="For programs.")
def status(name: str, output: str | None) -> int:
    """Show a lab's nodes and pods. Exit 0 when all is well, 1 when not."""
    from node.lab.verbs import lab_status  # noqa: PLC0415

    with doing(f"cannot tell the status of lab {name}"):
        answer: Json = lab_status(name)
    match output:
        case "json":
            click.echo(to_json(answer))
        case "yaml":
            click.echo(to_yaml(answer))
        case _:
            click.echo(_heading(answer))
            click.echo(_tables(answer))
    return 0 if answer["state"] == "up" else 1


@lab.command(
    name="exec",
    cls=CommandInside,
    context_settings={"ignore_unknown_options": True},
    epilog="""\b
Examples:
  muslin lab exec node1 -- muslin get routes
  muslin lab exec node2-pod1 -- ip address""",
)
@name_option
@click.argument("target", metavar="NODE|POD")
@click.argument("command", metavar="-- CMD ...", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, target: str, command: tuple[str, ...]) -> int:
    """Run a command inside a node or a pod; its exit code is ours."""
    from node.lab.verbs import lab_exec  # noqa: PLC0415

    command = command[1:] if command[0] == "--" else command
    if not command:
        raise click.UsageError("the command to run is missing")
    with doing(f"cannot run a command in {target}"):
        return lab_exec(name, target, command)


@lab.command(
    epilog="""\b
Example:
  muslin lab cut node1 node2"""
)
@click.argument("a", metavar="NODE")
@click.argument("b", metavar="NODE")
@name_option
def cut(a: str, b: str, name: str) -> int:
    """Block the underlay between two nodes."""
    from node.lab.verbs import lab_cut  # noqa: PLC0415

    with doing(f"cannot cut {a} from {b}"):
        lab_cut(name, a, b)
    click.echo(f"{a} and {b} no longer hear each other")
    return 0


@lab.command(
    short_help="Restore what lab cut took away.",
    epilog="""\b
Examples:
  muslin lab heal node1 node2
  muslin lab heal node1             all cuts of node1
  muslin lab heal                   all cuts""",
)
@click.argument("a", metavar="[NODE", required=False)
@click.argument("b", metavar="[NODE]]", required=False)
@name_option
def heal(a: str | None, b: str | None, name: str) -> int:
    """Restore the underlay between two nodes, of one node, or everywhere."""
    from node.lab.verbs import lab_heal  # noqa: PLC0415

    with doing(f"cannot heal lab {name}"):
        lab_heal(name, a, b)
    between = " and ".join(filter(None, (a, b))) or "all nodes"
    click.echo(f"the underlay of {between} is whole again")
    return 0


@lab.command(
    epilog="""\b
Examples:
  muslin lab down
  muslin lab down --name big"""
)
@name_option
def down(name: str) -> int:
    """Stop the daemons of a lab and remove everything that it made."""
    from node.lab.build import lab_down  # noqa: PLC0415
    from node.lab.store import LabStore  # noqa: PLC0415

    with doing(what := f"cannot take down lab {name}"), Progress("removing namespaces"):
        if not lab_down(name):
            labs = ", ".join(LabStore().names()) or "none"
            raise CliError(what, f"there is no lab {name}", f"labs are: {labs}")
    click.echo(f"lab {name} is gone")
    return 0


def _heading(answer: Json) -> str:
    cuts = answer["cuts"]
    pairs = [f"{a}-{b}" for a, b in cuts] if isinstance(cuts, list) else []
    keys = ("name", "state", "cluster", "cidr", "underlay", "mtu")
    lines = [f"{key:<10}{plain(answer[key])}" for key in keys]
    return "\n".join([*lines, f"{'cuts':<10}{plain(pairs) or 'none'}", ""])


def _tables(answer: Json) -> str:
    nodes = objects(answer["nodes"])
    node_keys = ("name", "state", "address", "address6", "underlay", "sees", "netns")
    pod_keys = ("name", "address", "address6", "netns")
    pods = [(node, pod) for node in nodes for pod in objects(node["pods"])]
    return "\n\n".join(
        (
            table(node_keys, [[plain(node[key]) for key in node_keys] for node in nodes]),
            table(
                ("pod", "node", *pod_keys[1:]),
                [
                    [plain(pod["name"]), plain(node["name"])]
                    + [plain(pod[key]) for key in pod_keys[1:]]
                    for node, pod in pods
                ],
            ),
        )
    )
