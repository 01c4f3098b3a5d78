"""lorikeet tenants."""

import typer

from lorikeet.gateway.v1 import tenant_service_pb2 as pb
from lorikeet.gateway.v1 import tenant_service_pb2_grpc as rpc
from services.cli.connection import as_operator, channel, every
from services.cli.show import Output, OutputOption, one_sentence, show

tenants = typer.Typer(no_args_is_help=True, help="Tenants, for the operator.")


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
