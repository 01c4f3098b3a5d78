"""lorikeet adapters: upload, list, show."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as rpc
from services.cli.connection import as_either, channel, every
from services.cli.show import Output, OutputOption, one_sentence, problems, show
from services.cli.upload import upload_folder

app = typer.Typer(no_args_is_help=True, help="A tenant's adapters.")

Tenant = Annotated[
    str, typer.Option(help="Whose adapters, as the operator. Default: the key's own tenant.")
]
COLUMNS = ("adapter", "number", "base_model", "max_rank", "module_count", "size_bytes", "digest")


@app.command()
def upload(
    folder: Annotated[
        Path, typer.Argument(help="A PEFT folder: adapter_config.json, adapter_model.safetensors.")
    ],
    name: Annotated[str, typer.Option(help="The adapter's name. Default: the folder's.")] = "",
    base: Annotated[
        str, typer.Option(help="The base model, if adapter_config.json holds only a path.")
    ] = "",
    tenant: Tenant = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Upload a new version of an adapter; an interrupted upload goes on where it stopped."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=problems,
        transient=True,
    )
    with one_sentence(), bar, channel() as connection:
        task = bar.add_task(f"Uploading {folder.name}", total=None)
        version = upload_folder(
            connection,
            as_either(tenant),
            folder,
            adapter=name or folder.resolve().name,
            tenant=tenant,
            base_model=base,
            advance=lambda sent, total: bar.update(task, completed=sent, total=total),
        )
    show([version], output, *COLUMNS)


@app.command("list")
def list_adapters(tenant: Tenant = "", output: OutputOption = Output.TABLE) -> None:
    """List adapters, each by its newest version."""
    request = pb.ListAdaptersRequest(tenant=tenant, page_size=1000)
    with one_sentence(), channel() as connection:
        list_page = rpc.AdapterStoreServiceStub(connection).ListAdapters
        found = every(list_page, request, as_either(tenant), "versions")
    show(found, output, *COLUMNS)


@app.command("show")
def show_adapter(name: str, tenant: Tenant = "", output: OutputOption = Output.TABLE) -> None:
    """Show every version of one adapter, newest first."""
    with one_sentence(), channel() as connection:
        response = rpc.AdapterStoreServiceStub(connection).GetAdapter(
            pb.GetAdapterRequest(tenant=tenant, adapter=name), metadata=as_either(tenant)
        )
    show(response.versions, output, *COLUMNS, "create_time")
