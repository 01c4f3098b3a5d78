"""lorikeet usage, lorikeet explain."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated

import grpc
import typer
from google.protobuf.timestamp_pb2 import Timestamp

from lorikeet.gateway.v1 import usage_service_pb2 as pb
from lorikeet.gateway.v1 import usage_service_pb2_grpc as rpc
from services.cli.connection import Metadata, as_either, as_operator, channel
from services.cli.show import Output, OutputOption, console, one_sentence, show
from services.core.errors import InvalidRequest

app = typer.Typer(help="What was used, and what it cost.")

_AGO = re.compile(r"(\d{1,6})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_SUMS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "charge")


class By(Enum):
    TENANT = "tenant"
    KEY = "key"
    ADAPTER = "adapter"
    MODEL = "model"
    HOUR = "hour"
    DAY = "day"
    TIER = "tier"

    @property
    def column(self) -> str:
        return {By.ADAPTER: "adapter_digest", By.HOUR: "start_time", By.DAY: "start_time"}.get(
            self, self.value
        )


Tiers = "priority, default or flex"
WhenHelp = "2026-11-22, 2026-11-22T13:00 (UTC unless it says), or 30m, 24h, 7d ago."
Since = Annotated[str, typer.Option("--since", help=f"Accepted then or later: {WhenHelp}")]
Until = Annotated[str, typer.Option("--until", help="Accepted before: the same forms.")]
Whose = Annotated[str, typer.Option("--tenant", help="Whose, as the operator.")]
Everybody = Annotated[bool, typer.Option("--all", help="Every tenant's, as the operator.")]
ByKey = Annotated[str, typer.Option("--key", help="Only by this key (its public id).")]
WithAdapter = Annotated[str, typer.Option("--adapter", help="Only with this version: its digest.")]
OfModel = Annotated[str, typer.Option("--model", help="Only where the model was named so.")]


@app.callback(invoke_without_command=True)
def usage(
    context: typer.Context,
    by: Annotated[
        list[By] | None,
        typer.Option("--by", help=f"What sums are by; can be repeated. A tier is {Tiers}."),
    ] = None,
    since: Since = "",
    until: Until = "",
    tenant: Whose = "",
    everybody: Everybody = False,
    key: ByKey = "",
    adapter: WithAdapter = "",
    model: OfModel = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Sums of what was used. Default: by model."""
    if context.invoked_subcommand is not None:
        return
    dimensions = by or [By.MODEL]
    with one_sentence(), channel() as connection:
        asked = pb.GetUsageRequest(
            filter=_filter(tenant, key, adapter, model, since, until),
            group_by=[pb.UsageDimension.Value(f"USAGE_DIMENSION_{d.name}") for d in dimensions],
        )
        who = _who(tenant, everybody)
        sums = rpc.UsageServiceStub(connection).GetUsage(asked, metadata=who).sums
    show(sums, output, *(dimension.column for dimension in dimensions), *_SUMS)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="A new file: NAME.csv or NAME.parquet.")],
    since: Since = "",
    until: Until = "",
    tenant: Whose = "",
    everybody: Everybody = False,
    key: ByKey = "",
    adapter: WithAdapter = "",
    model: OfModel = "",
) -> None:
    """Write every request that has ended to a file, oldest first.

    The file appears whole or not at all. Until now, unless --until says otherwise; requests that
    still run are not in it, so leave them time (an hour, for instance) before you bill. A
    request's tier of service is priority, default or flex.
    """
    from services.cli.ledger_files import open_table  # noqa: PLC0415  # pyarrow; few commands need it

    with one_sentence(), channel() as connection, open_table(file) as write:
        asked = pb.ListRequestsRequest(
            filter=_filter(tenant, key, adapter, model, since, until or "0m"),
            ended_only=True,
            order=pb.REQUEST_ORDER_OLDEST_FIRST,
            page_size=1000,
        )
        rows = 0
        for page in _pages(connection, asked, _who(tenant, everybody)):
            write(page)
            rows += len(page)
    console.print(f"{rows} requests are in {file}", highlight=False, soft_wrap=True)


def explain(
    request: Annotated[str, typer.Argument(help="Its id (x-request-id).")],
    tenant: Whose = "",
    everybody: Everybody = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say why a request waited, where it ran and what it cost."""
    with one_sentence(), channel() as connection:
        found = rpc.UsageServiceStub(connection).Explain(
            pb.ExplainRequest(request_id=request, tenant=tenant), metadata=_who(tenant, everybody)
        )
    if output is Output.JSON:
        show(found.explanations, output)
        return
    for each in found.explanations:
        console.print(each.request.id, style="bold", highlight=False, markup=False)
        for sentence in each.sentences:
            console.print(f"  {sentence}", highlight=False, markup=False, soft_wrap=True)


def _pages(
    connection: grpc.Channel, request: pb.ListRequestsRequest, who: Metadata
) -> Iterator[list[pb.RequestRecord]]:
    stub = rpc.UsageServiceStub(connection)
    while True:
        page = stub.ListRequests(request, metadata=who)
        yield list(page.requests)
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return


def _who(tenant: str, everybody: bool) -> Metadata:
    if tenant and everybody:
        raise typer.BadParameter("either --tenant or --all")
    return as_operator() if everybody else as_either(tenant)


def _filter(
    tenant: str, key: str, adapter: str, model: str, since: str, until: str
) -> pb.UsageFilter:
    return pb.UsageFilter(
        tenant=tenant,
        key=key,
        adapter_digest=adapter,
        model=model,
        start_time=_moment("since", since),
        end_time=_moment("until", until),
    )


def _moment(option: str, text: str) -> Timestamp | None:
    """Raises InvalidRequest."""
    if not text:
        return None
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            moment = datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        stamp = Timestamp()
        stamp.FromDatetime(moment)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest.of(f"--{option}", f"a time such as {WhenHelp}") from error
    return stamp
