"""lorikeet workers."""

import typer

from lorikeet.scheduler.v1 import scheduler_service_pb2 as pb
from lorikeet.scheduler.v1 import scheduler_service_pb2_grpc as rpc
from services.cli.connection import as_operator, channel
from services.cli.show import Output, OutputOption, one_sentence, show

app = typer.Typer(no_args_is_help=True, help="The fleet, for the operator.")


@app.callback()
def workers() -> None:
    """The fleet, for the operator."""


@app.command("list")
def list_workers(output: OutputOption = Output.TABLE) -> None:
    """List the live workers by id."""
    with one_sentence(), channel() as connection:
        response = rpc.SchedulerServiceStub(connection).ListWorkers(
            pb.ListWorkersRequest(), metadata=as_operator()
        )
    show(
        response.workers,
        output,
        "identity.id",
        "identity.address",
        "identity.base_model",
        "identity.device",
        "report.running_sequences",
        "report.waiting_sequences",
        "report.free_pages",
        "report.total_pages",
        "report.resident_adapters",
    )
