"""lorikeet queue."""

from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from lorikeet.gateway.v1 import queue_service_pb2 as pb
from lorikeet.gateway.v1 import queue_service_pb2_grpc as rpc
from services.cli.connection import as_operator, channel
from services.cli.show import one_sentence
from services.core.types import Tier
from services.runtime.wire import tier_from_wire

app = typer.Typer(no_args_is_help=True, help="Who waits for the workers, for the operator.")


@app.callback()
def queue() -> None:
    """Who waits for the workers, for the operator."""


@app.command()
def top(
    seconds: Annotated[
        float, typer.Option(min=0.1, help="From one look to the next, in seconds.")
    ] = 1.0,
    once: Annotated[bool, typer.Option(help="One look, and that is the end.")] = False,
) -> None:
    """Watch the queue: who waits and runs, what each was served, and how far apart they are.

    A table for each base model and each tier of service that was asked for.

    Too late: requests that were refused because their first token would have come too late for
    them. Who was refused is shown also if nothing of it waits or runs.
    """
    request = pb.WatchQueueRequest(interval_milliseconds=int(seconds * 1000), once=once)
    with one_sentence(), channel() as connection:
        responses = rpc.QueueServiceStub(connection).WatchQueue(request, metadata=as_operator())
        if once:
            Console().print(_picture(next(iter(responses))))
            return
        with Live(console=Console(), auto_refresh=False) as live:
            for response in responses:
                live.update(_picture(response), refresh=True)


def _picture(response: pb.WatchQueueResponse) -> Group | str:
    if not response.lanes:
        return "nobody has asked for anything yet"
    return Group(*(_table(lane) for lane in response.lanes))


def _table(lane: pb.Lane) -> Table:
    bound = f"{lane.bound:,.0f}" if lane.HasField("bound") else "none"
    jain = f"  jain {lane.jain_index:.3f}" if lane.HasField("jain_index") else ""
    tier = tier_from_wire(lane.tier) or Tier.DEFAULT
    title = f"{lane.base_model}  {tier.value}  {lane.policy}  {lane.workers} workers"
    table = Table(
        title=title, caption=f"gap {lane.gap:,.0f}  bound {bound}{jain}", title_justify="left"
    )
    table.add_column("tenant")
    for heading in ("waiting", "running", "longest wait", "service", "too late"):
        table.add_column(heading, justify="right")
    standing = {tenant.tenant for tenant in lane.tenants}
    gone = [pb.QueuedTenant(tenant=name) for name in lane.too_late if name not in standing]
    for tenant in [*lane.tenants, *gone]:
        table.add_row(
            tenant.tenant,
            str(tenant.waiting),
            str(tenant.running),
            f"{tenant.longest_wait_milliseconds / 1000:.1f} s",
            f"{tenant.service:,.0f}" if tenant.tenant in standing else "-",
            str(lane.too_late.get(tenant.tenant, 0)),
        )
    return table
