"""lorikeet migrations."""

from typing import Annotated

import typer

from lorikeet.scheduler.v1 import fleet_service_pb2 as pb
from lorikeet.scheduler.v1 import fleet_service_pb2_grpc as rpc
from services.cli.connection import as_operator, channel
from services.cli.show import Output, OutputOption, one_sentence, show

MOVES = (
    "id",
    "request_id",
    "source_worker_id",
    "target_worker_id",
    "reason",
    "state",
    "tokens",
    "gain_seconds",
    "ordered_at_ms",
)


def migrations(
    worker: Annotated[str, typer.Option("--worker", help="Only to or from this one.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="The newest.")] = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """List requests that were moved from worker to worker, the newest first."""
    with one_sentence(), channel() as connection:
        response = rpc.FleetServiceStub(connection).ListMigrations(
            pb.ListMigrationsRequest(worker_id=worker, page_size=limit), metadata=as_operator()
        )
    show(response.migrations, output, *MOVES)
