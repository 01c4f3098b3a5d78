"""lorikeet adapters promote, rollback, canary, alias, aliases, history."""

from typing import Annotated

import grpc
import typer

from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2_grpc as rpc
from services.cli.connection import TenantOption, as_either, channel, every
from services.cli.show import Output, OutputOption, one_sentence, show

app = typer.Typer()

COLUMNS = ("adapter", "name", "generation", "number", "canary.number", "canary.percent")
VERSION = "A version: its number, its digest (12 digits or more) or another alias."

Name = Annotated[str, typer.Argument(help="The adapter.")]
Version = Annotated[str, typer.Argument(help=VERSION)]
Alias = Annotated[str, typer.Option(help="Which alias.")]
Reason = Annotated[str, typer.Option(help="Why, for the history.")]
Expect = Annotated[
    int | None, typer.Option(help="Only if the alias is at this generation (0: never set).")
]


@app.command()
def promote(
    name: Name,
    version: Annotated[str, typer.Argument(help=VERSION + " Default: the running canary.")] = "",
    reason: Reason = "",
    expect: Expect = None,
    tenant: TenantOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a version what the adapter's name means, from the next request on."""
    request = pb.PromoteRequest(
        tenant=tenant, adapter=name, version=version, options=_options(reason, expect)
    )
    with one_sentence(), channel() as connection:
        response = _stub(connection).Promote(request, metadata=as_either(tenant))
    show([response.alias], output, *COLUMNS)


@app.command()
def rollback(
    name: Name,
    alias: Alias = "production",
    reason: Reason = "",
    expect: Expect = None,
    tenant: TenantOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """End a running canary, or go back to the version before the last promotion."""
    request = pb.RollbackRequest(
        tenant=tenant, adapter=name, alias=alias, options=_options(reason, expect)
    )
    with one_sentence(), channel() as connection:
        response = _stub(connection).Rollback(request, metadata=as_either(tenant))
    show([response.alias], output, *COLUMNS)


@app.command()
def canary(
    name: Name,
    version: Annotated[str, typer.Argument(help=VERSION + " Not needed to end it.")] = "",
    percent: Annotated[
        int, typer.Option(help="Its share of the requests; 0 ends it.", min=0, max=99)
    ] = 10,
    by_tenant: Annotated[
        bool, typer.Option("--by-tenant", help="Draw by calling tenant instead of by request.")
    ] = False,
    alias: Alias = "production",
    reason: Reason = "",
    expect: Expect = None,
    tenant: TenantOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Send a share of an alias's requests to a second version."""
    request = pb.SetCanaryRequest(
        tenant=tenant,
        adapter=name,
        alias=alias,
        version=version,
        percent=percent,
        split=pb.CANARY_SPLIT_TENANT if by_tenant else pb.CANARY_SPLIT_REQUEST,
        options=_options(reason, expect),
    )
    with one_sentence(), channel() as connection:
        response = _stub(connection).SetCanary(request, metadata=as_either(tenant))
    show([response.alias], output, *COLUMNS)


@app.command("alias")
def set_alias(
    name: Name,
    alias: Annotated[str, typer.Argument(help="The alias.")],
    version: Version = "",
    delete: Annotated[bool, typer.Option("--delete", help="Point it nowhere.")] = False,
    reason: Reason = "",
    expect: Expect = None,
    tenant: TenantOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Point any alias at a version; requests name it as NAME@ALIAS."""
    options = _options(reason, expect)
    with one_sentence(), channel() as connection:
        if delete:
            deletion = pb.DeleteAliasRequest(
                tenant=tenant, adapter=name, alias=alias, options=options
            )
            moved = _stub(connection).DeleteAlias(deletion, metadata=as_either(tenant)).alias
        else:
            request = pb.SetAliasRequest(
                tenant=tenant, adapter=name, alias=alias, version=version, options=options
            )
            moved = _stub(connection).SetAlias(request, metadata=as_either(tenant)).alias
    show([moved], output, *COLUMNS)


@app.command()
def aliases(name: Name, tenant: TenantOption = "", output: OutputOption = Output.TABLE) -> None:
    """List an adapter's aliases."""
    with one_sentence(), channel() as connection:
        response = _stub(connection).ListAliases(
            pb.ListAliasesRequest(tenant=tenant, adapter=name), metadata=as_either(tenant)
        )
    show(response.aliases, output, *COLUMNS, "moved_by", "create_time")


@app.command()
def history(
    name: Name,
    alias: Alias = "production",
    tenant: TenantOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Show every move of an alias, newest first."""
    request = pb.ListAliasHistoryRequest(tenant=tenant, adapter=name, alias=alias, page_size=1000)
    with one_sentence(), channel() as connection:
        list_page = _stub(connection).ListAliasHistory
        moves = every(list_page, request, as_either(tenant), "moves")
    show(moves, output, *COLUMNS[2:], "kind", "moved_by", "reason", "create_time")


def _stub(connection: grpc.Channel) -> rpc.AdapterLifecycleServiceStub:
    return rpc.AdapterLifecycleServiceStub(connection)


def _options(reason: str, expect: int | None) -> pb.MoveOptions:
    return pb.MoveOptions(reason=reason, expected_generation=expect)
