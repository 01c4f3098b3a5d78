"""lorikeet adapters: upload, list, show, download, and what the modules named below add."""

from pathlib import Path
from typing import Annotated

import typer

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as rpc
from services.cli import aliases, export, imports, sharing, watch
from services.cli.connection import TenantOption, as_either, channel, every
from services.cli.download import download_version
from services.cli.provenance import Job, Labels, Licence, Metrics, Parents, declared, pairs
from services.cli.show import VERSION_COLUMNS, Output, OutputOption, one_sentence, progress, show
from services.cli.upload import upload_folder

app = typer.Typer(no_args_is_help=True, help="A tenant's adapters.")
app.add_typer(imports.app)
app.add_typer(export.app)
app.add_typer(aliases.app)
app.add_typer(sharing.app)
app.add_typer(watch.app)

Name = Annotated[str, typer.Argument(help="The adapter.")]


@app.command()
def upload(
    folder: Annotated[
        Path, typer.Argument(help="A PEFT folder: adapter_config.json, adapter_model.safetensors.")
    ],
    name: Annotated[str, typer.Option(help="The adapter's name. Default: the folder's.")] = "",
    base: Annotated[
        str, typer.Option(help="The base model, if adapter_config.json holds only a path.")
    ] = "",
    label: Labels = None,
    metric: Metrics = None,
    licence: Licence = "",
    job: Job = "",
    parent: Parents = None,
    tenant: TenantOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Upload a new version of an adapter; an interrupted upload goes on where it stopped."""
    with one_sentence(), progress() as bar, channel() as connection:
        task = bar.add_task(f"Uploading {folder.name}", total=None)
        version = upload_folder(
            connection,
            as_either(tenant),
            folder,
            adapter=name or folder.resolve().name,
            tenant=tenant,
            base_model=base,
            provenance=declared(label, metric, licence, job, parent),
            advance=lambda sent, total: bar.update(task, completed=sent, total=total),
        )
    show([version], output, *VERSION_COLUMNS)


@app.command("list")
def list_adapters(
    shared: Annotated[
        bool, typer.Option("--shared", help="Those that others share, instead of one's own.")
    ] = False,
    tenant: TenantOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """List adapters, each by its newest version."""
    request = pb.ListAdaptersRequest(tenant=tenant, page_size=1000, shared=shared)
    with one_sentence(), channel() as connection:
        list_page = rpc.AdapterStoreServiceStub(connection).ListAdapters
        found = every(list_page, request, as_either(tenant), "versions")
    show(found, output, *(("tenant",) if shared else ()), *VERSION_COLUMNS)


@app.command()
def versions(
    name: Name,
    label: Labels = None,
    base: Annotated[str, typer.Option(help="Only those for this base model.")] = "",
    deleted: Annotated[bool, typer.Option("--deleted", help="Those deleted, too.")] = False,
    tenant: TenantOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """List an adapter's versions, newest first."""
    request = pb.ListVersionsRequest(
        tenant=tenant,
        adapter=name,
        base_model=base,
        labels=pairs(label),
        show_deleted=deleted,
        page_size=1000,
    )
    with one_sentence(), channel() as connection:
        list_page = rpc.AdapterStoreServiceStub(connection).ListVersions
        found = every(list_page, request, as_either(tenant), "versions")
    show(found, output, *VERSION_COLUMNS, "provenance.labels", "create_time", "delete_time")


@app.command()
def download(
    reference: Annotated[str, typer.Argument(help="NAME, NAME@NUMBER, NAME@DIGEST or NAME@ALIAS.")],
    to: Annotated[Path, typer.Argument(help="The file; an unfinished one is continued.")],
    tenant: TenantOption = "",
) -> None:
    """Download a version's canonical weights, a safetensors file, and check them."""
    with one_sentence(), progress() as bar, channel() as connection:
        task = bar.add_task(f"Downloading {reference}", total=None)
        download_version(
            connection,
            as_either(tenant),
            reference,
            to,
            tenant=tenant,
            advance=lambda done, total: bar.update(task, completed=done, total=total),
        )


@app.command("show")
def show_adapter(
    name: Name, tenant: TenantOption = "", output: OutputOption = Output.TABLE
) -> None:
    """Show every version of one adapter, newest first."""
    with one_sentence(), channel() as connection:
        response = rpc.AdapterStoreServiceStub(connection).GetAdapter(
            pb.GetAdapterRequest(tenant=tenant, adapter=name), metadata=as_either(tenant)
        )
    show(response.versions, output, *VERSION_COLUMNS, "create_time")
