"""lorikeet tenants and lorikeet keys."""

from typing import Annotated

import typer

from lorikeet.gateway.v1 import tenant_service_pb2 as pb
from lorikeet.gateway.v1 import tenant_service_pb2_grpc as rpc
from services.cli.connection import as_operator, channel, every
from services.cli.show import Output, OutputOption, console, one_sentence, show

tenants = typer.Typer(no_args_is_help=True, help="Tenants, for the operator.")
keys = typer.Typer(no_args_is_help=True, help="Keys that speak for tenants, for the operator.")

KEY_COLUMNS = ("id", "tenant", "label", "create_time", "revoke_time")


@tenants.command("create")
def create_tenant(name: str, output: OutputOption = Output.TABLE) -> None:
    """Create a tenant."""
    with one_sentence(), channel() as connection:
        response = rpc.TenantServiceStub(connection).CreateTenant(
            pb.CreateTenantRequest(name=name), metadata=as_operator()
        )
    show([response.tenant], output, "name", "create_time")


@tenants.command("list")
def list_tenants(output: OutputOption = Output.TABLE) -> None:
    """List tenants by name."""
    request = pb.ListTenantsRequest(page_size=1000)
    with one_sentence(), channel() as connection:
        list_page = rpc.TenantServiceStub(connection).ListTenants
        found = every(list_page, request, as_operator(), "tenants")
    show(found, output, "name", "create_time")


@keys.command("create")
def create_key(
    tenant: str,
    label: Annotated[str, typer.Option(help="A name for people.")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Create a key for a tenant and print its secret, once."""
    with one_sentence(), channel() as connection:
        response = rpc.TenantServiceStub(connection).CreateKey(
            pb.CreateKeyRequest(tenant=tenant, label=label), metadata=as_operator()
        )
    if output is Output.JSON:
        show([response], output)
        return
    show([response.key], output, *KEY_COLUMNS)
    console.print("Keep the secret; it is not shown again:")
    typer.echo(response.secret)


@keys.command("list")
def list_keys(tenant: str, output: OutputOption = Output.TABLE) -> None:
    """List a tenant's keys, without their secrets."""
    request = pb.ListKeysRequest(tenant=tenant, page_size=1000)
    with one_sentence(), channel() as connection:
        list_page = rpc.TenantServiceStub(connection).ListKeys
        found = every(list_page, request, as_operator(), "keys")
    show(found, output, *KEY_COLUMNS)


@keys.command("revoke")
def revoke_key(key_id: str, output: OutputOption = Output.TABLE) -> None:
    """End a key at once, for good."""
    with one_sentence(), channel() as connection:
        response = rpc.TenantServiceStub(connection).RevokeKey(
            pb.RevokeKeyRequest(id=key_id), metadata=as_operator()
        )
    show([response.key], output, *KEY_COLUMNS)
