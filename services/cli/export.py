"""lorikeet adapters export: a version as the PEFT folder that it was uploaded as."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import grpc
import numpy as np
import typer

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as rpc
from services.cli.base_models import base_model
from services.cli.connection import Metadata, TenantOption, as_either, channel
from services.cli.download import Advance, download_version
from services.cli.show import console, one_sentence, progress
from services.cli.tensors import StoredTensor, read_tensors, write_tensors
from services.cli.upload import CONFIG, WEIGHTS
from services.core.base_model import Module
from services.core.errors import AlreadyExists, FailedPrecondition, PermissionDenied

app = typer.Typer()

TRANSPOSED = 2  # the canonical format from which on B is [rank, out]; in format 1 it is [out, rank]


@app.command()
def export(
    reference: Annotated[str, typer.Argument(help="NAME, NAME@NUMBER, NAME@DIGEST or NAME@ALIAS.")],
    folder: Annotated[Path, typer.Argument(help="Where to: a new folder, or an empty one.")],
    tenant: TenantOption = "",
) -> None:
    """Write a version as a PEFT folder, bit for bit what was uploaded.

    The folder appears whole or not at all; a download that was interrupted goes on where it
    stopped when the same command is given again.
    """
    with one_sentence(), progress() as bar, channel() as connection:
        task = bar.add_task(f"Downloading {reference}", total=None)
        export_version(
            connection,
            as_either(tenant),
            reference,
            folder,
            tenant=tenant,
            advance=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(f"{reference} is in {folder}", highlight=False, soft_wrap=True)


def export_version(
    channel: grpc.Channel,
    metadata: Metadata,
    reference: str,
    folder: Path,
    *,
    tenant: str = "",
    advance: Advance = lambda done, total: None,
) -> None:
    """Raises AlreadyExists, PermissionDenied, FailedPrecondition, OSError or grpc.RpcError."""
    folder = folder.absolute()
    _check_free(folder)
    stub = rpc.AdapterStoreServiceStub(channel)
    asked = pb.GetVersionRequest(tenant=tenant, reference=reference)
    found = stub.GetVersion(asked, metadata=metadata)
    version = found.version
    base = base_model(channel, metadata, version.base_model)
    folder.parent.mkdir(parents=True, exist_ok=True)
    canonical = folder.with_name(f".{folder.name}.{version.digest[:12]}")
    # A name of its own: an alias may mean another version by now.
    exact = f"{version.tenant}/{version.adapter}@{version.digest}"
    try:
        download_version(channel, metadata, exact, canonical, tenant=tenant, advance=advance)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND and "/" in reference:
            raise PermissionDenied(
                f"{version.tenant}/{version.adapter} is shared to be used, not to be copied: "
                f"only {version.tenant} may export it"
            ) from error
        raise
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            made = Path(scratch, "made")
            made.mkdir()
            (made / CONFIG).write_bytes(found.config_json.encode())
            write_peft(canonical, base.modules, made / WEIGHTS, Path(scratch, "turned"))
            made.rename(folder)
    finally:
        canonical.unlink()


def _check_free(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise AlreadyExists(f"{folder} is there and is no folder")
    if folder.exists() and any(folder.iterdir()):
        raise AlreadyExists(f"{folder} is not empty")


def write_peft(canonical: Path, modules: tuple[Module, ...], to: Path, scratch: Path) -> None:
    """The canonical file's tensors under PEFT's names; `scratch` holds those that must be turned.

    Nothing is held in memory. Raises FailedPrecondition for a file that is not understood.
    """
    try:
        tensors, metadata = read_tensors(canonical)
        form = int(json.loads(metadata["lorikeet"])["format"])
        paths = {module.site: module.path for module in modules}
        named = {_name(name, paths): tensor for name, tensor in tensors.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(f"the weights are not in a form known here: {error}") from error
    if form not in (1, TRANSPOSED):
        raise FailedPrecondition(f"the store keeps weights in format {form}; update lorikeet")
    write_tensors(to, named if form < TRANSPOSED else _turned(named, scratch))


def _name(name: str, paths: Mapping[str, str]) -> str:
    site, _, side = name.rpartition(".")
    if side not in ("A", "B"):
        raise ValueError(f"the tensor {name}")
    return f"base_model.model.{paths[site]}.lora_{side}.weight"


def _turned(tensors: Mapping[str, StoredTensor], scratch: Path) -> dict[str, StoredTensor]:
    """With every B the other way round, in a file."""
    turned = dict(tensors)
    scratch.touch()
    offset = 0
    for name, tensor in tensors.items():
        if name.endswith(".lora_B.weight"):
            shape = tensor.bits.shape[::-1]
            bits = np.memmap(scratch, tensor.bits.dtype, "r+", offset=offset, shape=shape)
            bits[...] = tensor.bits.T
            turned[name] = StoredTensor(tensor.dtype, bits)
            offset += bits.nbytes
    return turned
