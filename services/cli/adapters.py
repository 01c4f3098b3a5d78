"""lorikeet adapters: upload, list, show, download, and what aliases, sharing and watch add."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as rpc
from lorikeet.types.v1.adapter_pb2 import Provenance
from services.cli import aliases, sharing, watch
from services.cli.connection import TenantOption, as_either, channel, every
from services.cli.download import download_version
from services.cli.show import Output, OutputOption, one_sentence, problems, show
from services.cli.upload import upload_folder

app = typer.Typer(no_args_is_help=True, help="A tenant's adapters.")
app.add_typer(aliases.app)
app.add_typer(sharing.app)
app.add_typer(watch.app)

Name = Annotated[str, typer.Argument(help="The adapter.")]
Labels = Annotated[
    list[str] | None, typer.Option("--label", help="A label, NAME=VALUE; may be repeated.")
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
    label: Labels = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="A measured value, NAME=NUMBER; may be repeated.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Its licence.")] = "",
    job: Annotated[str, typer.Option(help="The job that made it.")] = "",
    parent: Annotated[
        list[str] | None, typer.Option(help="Digest of what it was made from; may be repeated.")
    ] = None,
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
            provenance=Provenance(
                job=job,
                licence=licence,
                parents=parent,
                labels=_pairs(label),
                metrics=_numbers(metric),
            ),
            advance=lambda sent, total: bar.update(task, completed=sent, total=total),
        )
    show([version], output, *COLUMNS)


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
    show(found, output, *(("tenant",) if shared else ()), *COLUMNS)


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
        labels=_pairs(label),
        show_deleted=deleted,
        page_size=1000,
    )
    with one_sentence(), channel() as connection:
        list_page = rpc.AdapterStoreServiceStub(connection).ListVersions
        found = every(list_page, request, as_either(tenant), "versions")
    show(found, output, *COLUMNS, "provenance.labels", "create_time", "delete_time")


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
    show(response.versions, output, *COLUMNS, "create_time")


def progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=problems,
        transient=True,
    )


def _pairs(given: Sequence[str] | None) -> dict[str, str]:
    pairs = {}
    for item in given or ():
        name, equals, value = item.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{item!r}: write it as NAME=VALUE")
        pairs[name] = value
    return pairs


def _numbers(given: Sequence[str] | None) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in _pairs(given).items()}
    except ValueError as error:
        raise typer.BadParameter("write it as NAME=NUMBER") from error
