"""lorikeet adapters share, unshare, shares, delete, undelete, verify, gc."""

from typing import Annotated

import typer

from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2_grpc as rpc
from services.cli.connection import TenantOption, as_either, as_operator, channel
from services.cli.show import (
    EXIT_REFUSED,
    Output,
    OutputOption,
    console,
    one_sentence,
    show,
)

app = typer.Typer()

Name = Annotated[str, typer.Argument(help="The adapter.")]
With = Annotated[str, typer.Argument(help='Another tenant, or "*" for all.', metavar="TENANT")]
Number = Annotated[
    int, typer.Argument(help="A version's number. Default: the whole adapter.", min=0)
]


@app.command()
def share(name: Name, shared_with: With, tenant: TenantOption = "") -> None:
    """Let another tenant use an adapter as OWNER/NAME, but not download it."""
    request = pb.ShareAdapterRequest(tenant=tenant, adapter=name, shared_with=shared_with)
    with one_sentence(), channel() as connection:
        rpc.AdapterLifecycleServiceStub(connection).ShareAdapter(
            request, metadata=as_either(tenant)
        )
    console.print(f"{name} is shared with {shared_with}", highlight=False)


@app.command()
def unshare(name: Name, shared_with: With, tenant: TenantOption = "") -> None:
    """End that, from the next request on."""
    request = pb.UnshareAdapterRequest(tenant=tenant, adapter=name, shared_with=shared_with)
    with one_sentence(), channel() as connection:
        rpc.AdapterLifecycleServiceStub(connection).UnshareAdapter(
            request, metadata=as_either(tenant)
        )
    console.print(f"{name} is not shared with {shared_with}", highlight=False)


@app.command()
def shares(name: Name, tenant: TenantOption = "", output: OutputOption = Output.TABLE) -> None:
    """Show with whom an adapter is shared."""
    request = pb.ListSharesRequest(tenant=tenant, adapter=name)
    with one_sentence(), channel() as connection:
        found = rpc.AdapterLifecycleServiceStub(connection).ListShares(
            request, metadata=as_either(tenant)
        )
    rows = [pb.ShareAdapterRequest(adapter=name, shared_with=who) for who in found.shared_with]
    show(rows, output, "adapter", "shared_with")


@app.command()
def delete(name: Name, number: Number = 0, tenant: TenantOption = "") -> None:
    """Delete a version or a whole adapter; undelete brings it back for some days."""
    with one_sentence(), channel() as connection:
        stub = rpc.AdapterLifecycleServiceStub(connection)
        if number:
            version = pb.DeleteVersionRequest(tenant=tenant, adapter=name, number=number)
            stub.DeleteVersion(version, metadata=as_either(tenant))
        else:
            adapter = pb.DeleteAdapterRequest(tenant=tenant, adapter=name)
            stub.DeleteAdapter(adapter, metadata=as_either(tenant))
    console.print(f"{name}{f'@{number}' if number else ''} is deleted", highlight=False)


@app.command()
def undelete(name: Name, number: Number = 0, tenant: TenantOption = "") -> None:
    """Bring a deleted version or adapter back."""
    with one_sentence(), channel() as connection:
        stub = rpc.AdapterLifecycleServiceStub(connection)
        if number:
            version = pb.UndeleteVersionRequest(tenant=tenant, adapter=name, number=number)
            stub.UndeleteVersion(version, metadata=as_either(tenant))
        else:
            adapter = pb.UndeleteAdapterRequest(tenant=tenant, adapter=name)
            stub.UndeleteAdapter(adapter, metadata=as_either(tenant))
    console.print(f"{name}{f'@{number}' if number else ''} is back", highlight=False)


@app.command()
def verify(
    reference: Annotated[str, typer.Argument(help="NAME, NAME@NUMBER, NAME@DIGEST or NAME@ALIAS.")],
    tenant: TenantOption = "",
) -> None:
    """Have the store read a version's weights again; exit code 1 if they are damaged."""
    request = pb.VerifyVersionRequest(tenant=tenant, reference=reference)
    with one_sentence(), channel() as connection:
        found = rpc.AdapterLifecycleServiceStub(connection).VerifyVersion(
            request, metadata=as_either(tenant)
        )
    state = "damaged: upload the same bytes again to mend it" if found.damaged else "good"
    console.print(f"{found.version.adapter}@{found.version.number} is {state}", highlight=False)
    raise SystemExit(EXIT_REFUSED if found.damaged else 0)


@app.command()
def gc(output: OutputOption = Output.TABLE) -> None:
    """Remove, as the operator, what was deleted too long ago and what nothing refers to."""
    with one_sentence(), channel() as connection:
        collected = rpc.AdapterLifecycleServiceStub(connection).CollectGarbage(
            pb.CollectGarbageRequest(), metadata=as_operator()
        )
    show([collected], output, "versions", "blobs", "uploads")
