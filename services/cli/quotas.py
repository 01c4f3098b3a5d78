"""lorikeet quotas."""

from typing import Annotated

import typer
from rich.table import Table

from lorikeet.gateway.v1 import quota_service_pb2 as pb
from lorikeet.gateway.v1 import quota_service_pb2_grpc as rpc
from services.cli.connection import as_either, as_operator, channel
from services.cli.show import Output, OutputOption, console, one_sentence, show

app = typer.Typer(no_args_is_help=True, help="How much tenants may use, and have used.")

KeyOption = Annotated[
    str, typer.Option("--key", help="Of one of the tenant's keys. Default: of all of them.")
]
LimitOption = Annotated[str, typer.Option(metavar="NUMBER|none")]


@app.command("show")
def show_quota(
    tenant: Annotated[str, typer.Argument(help="As the operator. Default: the key's own.")] = "",
    key: KeyOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Show limits, and what counts against them now."""
    request = pb.GetLimitsRequest(tenant=tenant, key_id=key)
    with one_sentence(), channel() as connection:
        response = rpc.QuotaServiceStub(connection).GetLimits(request, metadata=as_either(tenant))
    _show(response.quota, output)


@app.command("set")
def set_limits(
    tenant: str,
    key: KeyOption = "",
    requests_per_minute: LimitOption = "",
    tokens_per_minute: LimitOption = "",
    concurrent_requests: LimitOption = "",
    tokens_per_month: LimitOption = "",
    tokens_in_total: LimitOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Change limits, as the operator; "none" lifts one. Those that are not given stay.

    Tokens are of prompts and completions; a month is a calendar month (UTC).
    """
    given = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "concurrent_requests": concurrent_requests,
        "tokens_per_month": tokens_per_month,
        "tokens_in_total": tokens_in_total,
    }
    request = pb.SetLimitsRequest(tenant=tenant, key_id=key)
    for name, text in given.items():
        if text:
            request.update_mask.paths.append(name)
        if text and text != "none":
            setattr(request.limits, name, _number(name, text))
    if not request.update_mask.paths:
        raise typer.BadParameter("name a limit to change")
    with one_sentence(), channel() as connection:
        response = rpc.QuotaServiceStub(connection).SetLimits(request, metadata=as_operator())
    _show(response.quota, output)


def _number(name: str, text: str) -> int:
    """Raises typer.BadParameter."""
    if not text.isdecimal() or len(text) > 18:
        option = "--" + name.replace("_", "-")
        raise typer.BadParameter(f"{option}: {text!r} is neither a number nor none")
    return int(text)


def _show(quota: pb.Quota, output: Output) -> None:
    if output is Output.JSON:
        show([quota], output)
        return
    limits, usage = quota.limits, quota.usage
    counted = {
        "requests_per_minute": usage.requests_in_minute,
        "tokens_per_minute": usage.tokens_in_minute,
        "concurrent_requests": usage.running_requests,
        "tokens_per_month": usage.tokens_in_month + usage.reserved_tokens,
        "tokens_in_total": usage.tokens_in_total + usage.reserved_tokens,
    }
    allowed = {field.name: value for field, value in limits.ListFields()}
    table = Table("limit", "allowed", "counted", box=None, header_style="bold")
    for name, count in counted.items():
        table.add_row(name, str(allowed.get(name, "-")), str(count))
    console.print(table)
