"""lorikeet adapters watch."""

import json
from collections.abc import Iterator
from typing import Annotated

import grpc
import typer
from google.protobuf.json_format import MessageToDict

from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2_grpc as rpc
from services.cli.connection import Metadata, TenantOption, as_either, channel
from services.cli.show import Output, OutputOption, enum_word, one_sentence

app = typer.Typer()


@app.command()
def watch(
    after: Annotated[
        int | None, typer.Option(help="Go on after this cursor, as JSON output has it.", min=0)
    ] = None,
    tenant: TenantOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Print what happens to your adapters and those shared with you, a line each, until Ctrl-C."""
    request = pb.WatchRequest(tenant=tenant, after=after)
    with one_sentence(), channel() as connection:
        try:
            for response in _followed(connection, request, as_either(tenant)):
                if response.HasField("change"):
                    typer.echo(_line(response, output))
        except KeyboardInterrupt:
            return


def _followed(
    connection: grpc.Channel, request: pb.WatchRequest, metadata: Metadata
) -> Iterator[pb.WatchResponse]:
    """On and on: a server that stops ends the call, and another may be there."""
    stub = rpc.AdapterLifecycleServiceStub(connection)
    while True:
        for response in stub.Watch(request, metadata=metadata):
            request.after = response.cursor
            yield response


def _line(response: pb.WatchResponse, output: Output) -> str:
    if output is Output.JSON:
        return json.dumps(
            MessageToDict(response, preserving_proto_field_name=True), ensure_ascii=False
        )
    change = response.change
    kind = enum_word(pb.ChangeKind.DESCRIPTOR, pb.ChangeKind.Name(change.kind))
    when = change.create_time.ToJsonString()
    return " ".join([when, kind, *_facts(change)])


def _facts(change: pb.Change) -> Iterator[str]:
    if not change.adapter:
        yield change.base_model
        return
    yield f"{change.tenant}/{change.adapter}" + (f"@{change.alias}" if change.alias else "")
    if change.number:
        yield f"version {change.number} ({change.digest[:12]})"
    if change.canary_number:
        yield f"canary {change.canary_number} ({change.canary_digest[:12]})"
    if change.alias and not change.number:
        yield "nowhere"
    if change.generation:
        yield f"generation {change.generation}"
    if change.shared_with:
        yield f"with {change.shared_with}"
