"""lorikeet tenants organisations."""

from typing import Annotated

import typer

from lorikeet.gateway.v1 import tenant_service_pb2 as pb
from lorikeet.gateway.v1 import tenant_service_pb2_grpc as rpc
from services.cli.connection import as_operator, channel, every
from services.cli.show import Output, OutputOption, one_sentence, show

app = typer.Typer(
    no_args_is_help=True,
    help="Tenants that share what they get, under the policy vtc-hierarchy; for the operator.",
)

COLUMNS = ("name", "weight")
WeightOption = Annotated[
    float, typer.Option(help="What it gets against other organisations, 0.001 to 1000.")
]


@app.command("create")
def create_organisation(
    name: str, weight: WeightOption = 1.0, output: OutputOption = Output.TABLE
) -> None:
    """Create an organisation."""
    request = pb.CreateOrganisationRequest(name=name, weight=weight)
    with one_sentence(), channel() as connection:
        stub = rpc.TenantServiceStub(connection)
        response = stub.CreateOrganisation(request, metadata=as_operator())
    show([response.organisation], output, *COLUMNS)


@app.command("set")
def set_organisation(name: str, weight: WeightOption, output: OutputOption = Output.TABLE) -> None:
    """Change an organisation's weight, for requests that come from now on."""
    request = pb.UpdateOrganisationRequest(name=name, weight=weight)
    with one_sentence(), channel() as connection:
        stub = rpc.TenantServiceStub(connection)
        response = stub.UpdateOrganisation(request, metadata=as_operator())
    show([response.organisation], output, *COLUMNS)


@app.command("list")
def list_organisations(output: OutputOption = Output.TABLE) -> None:
    """List organisations by name."""
    request = pb.ListOrganisationsRequest(page_size=1000)
    with one_sentence(), channel() as connection:
        list_page = rpc.TenantServiceStub(connection).ListOrganisations
        found = every(list_page, request, as_operator(), "organisations")
    show(found, output, *COLUMNS)
