"""lorikeet keys."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from lorikeet.gateway.v1 import tenant_service_pb2 as pb
from lorikeet.gateway.v1 import tenant_service_pb2_grpc as rpc
from services.cli.connection import as_operator, channel, every
from services.cli.show import Output, OutputOption, console, one_sentence, show

app = typer.Typer(no_args_is_help=True, help="Keys that speak for tenants, for the operator.")

KEY_COLUMNS = ("id", "tenant", "label", "scopes", "create_time", "expire_time", "revoke_time")


@app.command("create")
def create_key(
    tenant: str,
    label: Annotated[str, typer.Option(help="A name for people.")] = "",
    expires_in: Annotated[
        str, typer.Option(help="From when on it works no more: 90s, 15m, 12h, 30d. Default: never.")
    ] = "",
    scope: Annotated[
        list[str],
        typer.Option(
            help="What it may do: generate, adapters:read, adapters:write. Can be repeated. "
            "Default: everything."
        ),
    ] = [],  # noqa: B006  # typer reads it, nobody writes it
    output: OutputOption = Output.TABLE,
) -> None:
    """Create a key for a tenant and print its secret, once."""
    request = pb.CreateKeyRequest(tenant=tenant, label=label, scopes=scope)
    if expires_in:
        request.expire_time.FromDatetime(datetime.now(UTC) + duration(expires_in, "--expires-in"))
    with one_sentence(), channel() as connection:
        response = rpc.TenantServiceStub(connection).CreateKey(request, metadata=as_operator())
    _show_secret(response, output)


@app.command("rotate")
def rotate_key(
    key_id: str,
    overlap: Annotated[
        str, typer.Option(help="For how long the old secret goes on working: 0s to 30d.")
    ] = "1h",
    output: OutputOption = Output.TABLE,
) -> None:
    """Give a key a new secret and print it, once. Id, scopes, expiry and limits stay."""
    request = pb.RotateKeyRequest(id=key_id)
    request.overlap.FromTimedelta(duration(overlap, "--overlap"))
    with one_sentence(), channel() as connection:
        response = rpc.TenantServiceStub(connection).RotateKey(request, metadata=as_operator())
    _show_secret(response, output)


@app.command("list")
def list_keys(tenant: str, output: OutputOption = Output.TABLE) -> None:
    """List a tenant's keys, without their secrets."""
    request = pb.ListKeysRequest(tenant=tenant, page_size=1000)
    with one_sentence(), channel() as connection:
        list_page = rpc.TenantServiceStub(connection).ListKeys
        found = every(list_page, request, as_operator(), "keys")
    show(found, output, *KEY_COLUMNS)


@app.command("revoke")
def revoke_key(key_id: str, output: OutputOption = Output.TABLE) -> None:
    """End a key at once, for good."""
    with one_sentence(), channel() as connection:
        response = rpc.TenantServiceStub(connection).RevokeKey(
            pb.RevokeKeyRequest(id=key_id), metadata=as_operator()
        )
    show([response.key], output, *KEY_COLUMNS)


def duration(text: str, option: str) -> timedelta:
    """90s, 15m, 12h or 30d. Raises typer.BadParameter, naming the option."""
    form = _DURATION.fullmatch(text)
    if form is None:
        raise typer.BadParameter(f"{option}: {text!r} is none of the form 90s, 15m, 12h, 30d")
    return timedelta(**{_UNITS[form[2]]: int(form[1])})


def _show_secret(response: pb.CreateKeyResponse | pb.RotateKeyResponse, output: Output) -> None:
    if output is Output.JSON:
        show([response], output)
        return
    show([response.key], output, *KEY_COLUMNS)
    console.print("Keep the secret; it is not shown again:")
    typer.echo(response.secret)


_DURATION = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
