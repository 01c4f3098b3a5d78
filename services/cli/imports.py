"""lorikeet adapters import: a new version from anywhere but PEFT's own folder, or from there."""

from typing import Annotated

import typer

from services.cli.base_models import base_model
from services.cli.connection import TenantOption, as_either, channel
from services.cli.provenance import Job, Labels, Licence, Metrics, Parents, declared
from services.cli.show import (
    VERSION_COLUMNS,
    Output,
    OutputOption,
    notice,
    one_sentence,
    progress,
    show,
)
from services.cli.sources.opening import MOST_BYTES, Where, opened
from services.cli.upload import upload_folder
from services.core.base_model import BaseModel
from services.core.errors import InvalidRequest

app = typer.Typer()

SOURCE = (
    "A folder (PEFT's, a repository's snapshot, models--ORG--NAME of the hub's cache), a zip or "
    "tar archive, a LoRA in GGUF, or s3://BUCKET/PREFIX (credentials from AWS_*)."
)


@app.command("import")
def import_adapter(
    source: Annotated[str, typer.Argument(help=SOURCE)],
    name: Annotated[str, typer.Option(help="The adapter's name. Default: the source's.")] = "",
    base: Annotated[
        str,
        typer.Option(
            help="The base model; needed for GGUF, or if adapter_config.json holds only a path."
        ),
    ] = "",
    subfolder: Annotated[
        str, typer.Option(help="The folder of it that holds the adapter. Default: the only one.")
    ] = "",
    revision: Annotated[
        str, typer.Option(help="Branch, tag or commit in the hub's cache. Default: main.")
    ] = "",
    max_bytes: Annotated[
        int, typer.Option(help="The most bytes to unpack from an archive or to fetch.", min=1)
    ] = MOST_BYTES,
    label: Labels = None,
    metric: Metrics = None,
    licence: Licence = "",
    job: Job = "",
    parent: Parents = None,
    tenant: TenantOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Upload a new version of an adapter from a repository, an archive, GGUF or a bucket.

    Only adapter_config.json and adapter_model.safetensors are read; a pickle is never opened. GGUF
    becomes PEFT's form again: F32, F16 and BF16 bit for bit. An interrupted upload goes on where it
    stopped when the same command is given again.
    """
    provenance = declared(label, metric, licence, job, parent)
    with one_sentence(), progress() as bar, channel() as connection:

        def known_base() -> BaseModel:
            if not base:
                raise InvalidRequest.of("base", "GGUF does not say which: name it by --base")
            return base_model(connection, as_either(tenant), base)

        task = bar.add_task(f"Reading {source}", total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        with opened(source, Where(subfolder, revision, max_bytes), known_base, advance) as adapter:
            for note in adapter.notes:
                notice(note)
            bar.reset(task, description=f"Uploading {adapter.name}", total=None)
            version = upload_folder(
                connection,
                as_either(tenant),
                adapter.folder,
                adapter=name or adapter.name.lower(),
                tenant=tenant,
                base_model=base,
                provenance=provenance,
                advance=advance,
            )
    show([version], output, *VERSION_COLUMNS)
