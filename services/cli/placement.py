"""lorikeet placement."""

from collections.abc import Iterable
from typing import Annotated

import typer

from lorikeet.scheduler.v1 import fleet_service_pb2 as pb
from lorikeet.scheduler.v1 import fleet_service_pb2_grpc as rpc
from services.cli.connection import as_operator, channel
from services.cli.show import Output, OutputOption, console, one_sentence, show

app = typer.Typer(no_args_is_help=True, help="Which adapter is on which worker, for the operator.")

DigestArgument = Annotated[str, typer.Argument(help="Digest of the adapter version.")]
BaseOption = Annotated[
    str, typer.Option("--base", help="Name of the base model; needed if the fleet has several.")
]


@app.command()
def explain(
    adapter: Annotated[str, typer.Argument(help="Digest; none for the base model.")] = "",
    base: BaseOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Show where the next request of an adapter would go, and why not elsewhere."""
    asked = pb.ExplainPlacementRequest(adapter_digest=adapter, base_model=base)
    with one_sentence(), channel() as connection:
        response = rpc.FleetServiceStub(connection).ExplainPlacement(asked, metadata=as_operator())
    if output is Output.JSON:
        show([response], output)
        return
    console.print(
        f"{response.requests_per_minute:.1f} requests a minute, {response.homes} homes, "
        f"pinned to {response.pinned}",
        highlight=False,
    )
    costs = ("total_ms", "load_ms", "queue_ms", "slowdown_ms")
    show(response.workers, output, "worker_id", "home", "place", *costs, "excluded")


@app.command()
def pin(
    adapter: DigestArgument,
    workers: Annotated[int, typer.Option("--workers", min=1, help="On so many at least.")] = 1,
    base: BaseOption = "",
) -> None:
    """Keep an adapter on the device of so many workers, requests or not."""
    _pin(adapter, workers, base)


@app.command()
def unpin(adapter: DigestArgument) -> None:
    """Let an adapter go that was pinned."""
    _pin(adapter, 0, "")


@app.command()
def pins(output: OutputOption = Output.TABLE) -> None:
    """List what is pinned, by digest."""
    with one_sentence(), channel() as connection:
        response = rpc.FleetServiceStub(connection).ListPins(
            pb.ListPinsRequest(), metadata=as_operator()
        )
    show(
        response.pins,
        output,
        "adapter_digest",
        "base_model",
        "workers",
        "worker_ids",
        "full_worker_ids",
    )


@app.command()
def preload(
    adapter: DigestArgument,
    worker: Annotated[
        list[str] | None, typer.Option("--worker", help="Where; can be repeated.")
    ] = None,
    base: BaseOption = "",
) -> None:
    """Bring an adapter into the host memory of workers, once: to its homes if none is named."""
    asked = pb.PreloadAdapterRequest(
        adapter_digest=adapter, base_model=base, worker_ids=worker or []
    )
    with one_sentence(), channel() as connection:
        response = rpc.FleetServiceStub(connection).PreloadAdapter(asked, metadata=as_operator())
    _name(response.worker_ids, "ordered of")


def _pin(adapter: str, workers: int, base: str) -> None:
    asked = pb.PinAdapterRequest(adapter_digest=adapter, base_model=base, workers=workers)
    with one_sentence(), channel() as connection:
        response = rpc.FleetServiceStub(connection).PinAdapter(asked, metadata=as_operator())
    _name(response.worker_ids, "kept on")


def _name(workers: Iterable[str], what: str) -> None:
    console.print(f"{what} {', '.join(workers) or 'no worker'}", highlight=False, soft_wrap=True)
