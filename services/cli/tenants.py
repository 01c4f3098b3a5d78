"""lorikeet tenants."""

from typing import Annotated

import typer

from lorikeet.gateway.v1 import tenant_service_pb2 as pb
from lorikeet.gateway.v1 import tenant_service_pb2_grpc as rpc
from services.cli import organisations
from services.cli.connection import as_operator, channel, every
from services.cli.show import Output, OutputOption, one_sentence, show
from services.core.types import Tier
from services.runtime.wire import tier_to_wire

tenants = typer.Typer(no_args_is_help=True, help="Tenants, for the operator.")
tenants.add_typer(organisations.app, name="organisations")

COLUMNS = ("name", "organisation", "weight", "highest_tier", "create_time")
WEIGHT = "What it gets against others, 0.001 to 1000: with 2, twice as much as with 1."

OrganisationOption = Annotated[
    str | None, typer.Option(help='The organisation that it belongs to; "": none.')
]
WeightOption = Annotated[float | None, typer.Option(help=WEIGHT)]
TierOption = Annotated[
    Tier | None, typer.Option(help="The highest service tier that its requests may ask for.")
]


@tenants.command("create")
def create_tenant(
    name: str,
    organisation: OrganisationOption = None,
    weight: WeightOption = None,
    highest_tier: TierOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Create a tenant, of weight 1 and for the default tier if nothing else is said."""
    request = pb.CreateTenantRequest(
        name=name,
        organisation=organisation or "",
        weight=weight,
        highest_tier=tier_to_wire(highest_tier),
    )
    with one_sentence(), channel() as connection:
        response = rpc.TenantServiceStub(connection).CreateTenant(request, metadata=as_operator())
    show([response.tenant], output, *COLUMNS)


@tenants.command("set")
def set_tenant(
    name: str,
    organisation: OrganisationOption = None,
    weight: WeightOption = None,
    highest_tier: TierOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Change what is named of a tenant, from its next request on; the rest stays."""
    if organisation is None and weight is None and highest_tier is None:
        raise typer.BadParameter("name what to change: --organisation, --weight or --highest-tier")
    request = pb.UpdateTenantRequest(
        name=name,
        organisation=organisation,
        weight=weight,
        highest_tier=tier_to_wire(highest_tier),
    )
    with one_sentence(), channel() as connection:
        response = rpc.TenantServiceStub(connection).UpdateTenant(request, metadata=as_operator())
    show([response.tenant], output, *COLUMNS)


@tenants.command("list")
def list_tenants(output: OutputOption = Output.TABLE) -> None:
    """List tenants by name."""
    request = pb.ListTenantsRequest(page_size=1000)
    with one_sentence(), channel() as connection:
        list_page = rpc.TenantServiceStub(connection).ListTenants
        found = every(list_page, request, as_operator(), "tenants")
    show(found, output, *COLUMNS)
