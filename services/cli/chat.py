"""lorikeet chat: one question, or a conversation."""

from typing import Annotated

import typer

from lorikeet.gateway.v1 import gateway_service_pb2 as pb
from lorikeet.gateway.v1 import gateway_service_pb2_grpc as rpc
from lorikeet.types.v1.generation_pb2 import SamplingParams
from services.cli.connection import as_tenant, channel
from services.cli.show import Output, OutputOption, console, one_sentence, print_json
from services.core.types import Tier
from services.runtime.wire import tier_to_wire


def chat(
    question: Annotated[str, typer.Argument(help="Leave it out to converse.")] = "",
    model: Annotated[str, typer.Option("--model", "-m", help="Base model or adapter.")] = "",
    max_tokens: Annotated[int, typer.Option(min=1)] = 200,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0)] = 0.0,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    tier: Annotated[
        Tier | None, typer.Option(help="How it compares with others that wait.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Ask a model; the answer streams as it is made. An empty line ends a conversation."""
    sampling = SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=seed)
    with one_sentence(), channel() as connection:
        stub = rpc.GatewayServiceStub(connection)
        models = stub.ListModels(pb.ListModelsRequest(), metadata=as_tenant()).models
        if not model and not models:
            raise typer.BadParameter("the server has no models yet")
        request = pb.GenerateRequest(
            model=model or models[0].id, sampling=sampling, service_tier=tier_to_wire(tier)
        )
        if question:
            _ask(stub, request, question, output)
            return
        console.print(f"Talking to [bold]{request.model}[/bold]; an empty line ends it.")
        while question := typer.prompt("you", default="", show_default=False):
            _ask(stub, request, question, output)


def _ask(
    stub: "rpc.GatewayServiceStub", request: pb.GenerateRequest, question: str, output: Output
) -> None:
    """Ask, print, and remember both in the request."""
    request.chat.messages.append(pb.ChatMessage(role="user", content=question))
    text = ""
    last = pb.GenerateResponse()
    for piece in stub.Generate(request, metadata=as_tenant()):
        text += piece.text
        last = piece
        if output is Output.TABLE:
            typer.echo(piece.text, nl=False)
    request.chat.messages.append(pb.ChatMessage(role="assistant", content=text))
    if output is Output.JSON:
        print_json(
            {
                "model": request.model,
                "text": text,
                "prompt_tokens": last.usage.prompt_tokens,
                "completion_tokens": last.usage.completion_tokens,
            }
        )
    else:
        typer.echo()
