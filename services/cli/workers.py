"""lorikeet workers."""

from typing import Annotated, Any

import grpc
import typer

from lorikeet.scheduler.v1 import fleet_service_pb2 as fleet_pb
from lorikeet.scheduler.v1 import fleet_service_pb2_grpc as fleet_rpc
from lorikeet.scheduler.v1 import scheduler_service_pb2 as pb
from lorikeet.scheduler.v1 import scheduler_service_pb2_grpc as rpc
from services.cli.connection import as_operator, channel
from services.cli.migrations import MOVES
from services.cli.show import Output, OutputOption, one_sentence, show
from services.core.errors import NotFound

app = typer.Typer(no_args_is_help=True, help="The fleet, for the operator.")

WorkerArgument = Annotated[str, typer.Argument(help="Its id.")]

_WORKERS = (
    "identity.id",
    "state",
    "identity.address",
    "identity.base_model",
    "identity.device",
    "report.running_sequences",
    "report.waiting_sequences",
    "report.free_pages",
    "report.total_pages",
    "report.resident_adapters",
)


@app.callback()
def workers() -> None:
    """The fleet, for the operator."""


@app.command("list")
def list_workers(output: OutputOption = Output.TABLE) -> None:
    """List the workers by id: those that are live, and those that are cordoned or drained."""
    with one_sentence(), channel() as connection:
        listed = _listed(connection)
    show(listed, output, *_WORKERS)


@app.command("show")
def show_worker(worker: WorkerArgument, output: OutputOption = Output.TABLE) -> None:
    """Show a worker with the adapters that are there."""
    with one_sentence(), channel() as connection:
        found = next((each for each in _listed(connection) if each.identity.id == worker), None)
        if found is None:
            raise NotFound(f"there is no worker {worker!r}")
    show([found], output, *_WORKERS, "wish", "report.steps", "report.most_sequences")
    if output is Output.TABLE:
        adapters = found.report.adapters.adapters
        show(adapters, output, "digest", "place", "bytes", "running", "waiting", "pinned")


@app.command()
def cordon(worker: WorkerArgument, output: OutputOption = Output.TABLE) -> None:
    """Let it take no new requests; what runs goes on."""
    _set(worker, pb.WORKER_WISH_CORDON, output)


@app.command()
def uncordon(worker: WorkerArgument, output: OutputOption = Output.TABLE) -> None:
    """Let it take requests, whether it was cordoned or drains."""
    _set(worker, pb.WORKER_WISH_SERVE, output)


@app.command()
def drain(worker: WorkerArgument, output: OutputOption = Output.TABLE) -> None:
    """Let it take no new requests, move away what runs, and then end its process.

    If it comes back it is cordoned, until it is uncordoned.
    """
    _set(worker, pb.WORKER_WISH_DRAIN, output)


@app.command()
def rebalance(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be moved.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Look for moves that even out the fleet, now, and have them made."""
    with one_sentence(), channel() as connection:
        response = fleet_rpc.FleetServiceStub(connection).Rebalance(
            fleet_pb.RebalanceRequest(dry_run=dry_run), metadata=as_operator()
        )
    show(response.migrations, output, *MOVES)


def _listed(connection: grpc.Channel) -> Any:
    stub = rpc.SchedulerServiceStub(connection)
    return stub.ListWorkers(pb.ListWorkersRequest(), metadata=as_operator()).workers


def _set(worker: str, wish: pb.WorkerWish.ValueType, output: Output) -> None:
    with one_sentence(), channel() as connection:
        response = fleet_rpc.FleetServiceStub(connection).SetWorker(
            fleet_pb.SetWorkerRequest(worker_id=worker, wish=wish), metadata=as_operator()
        )
    show([response.worker], output, "identity.id", "wish", "state", "report.running_sequences")
