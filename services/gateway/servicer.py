"""The gateway's gRPC face for tenants."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from lorikeet.gateway.v1 import gateway_service_pb2 as pb
from lorikeet.gateway.v1 import gateway_service_pb2_grpc as rpc
from lorikeet.types.v1 import generation_pb2
from services.core.errors import InvalidRequest
from services.core.types import BatchFacts, PositionLogprobs, TokenLogprob
from services.gateway.conversation import ChatMessage, Conversation, ToolCall
from services.gateway.course import Completion, TextPiece
from services.gateway.gateway import Gateway
from services.gateway.intake import Intake
from services.gateway.prompts import Prompt
from services.gateway.sampling import Asked
from services.gateway.strict_json import loads
from services.gateway.text import token_text
from services.gateway.tool_calls import with_calls
from services.gateway.tools import Function, Must, Tools, offered
from services.runtime import call, wire
from services.runtime.interceptors import Context

_MUST = {pb.ToolChoice.MODE_NONE: Must.NONE, pb.ToolChoice.MODE_REQUIRED: Must.REQUIRED}


class GatewayServicer(rpc.GatewayServiceServicer):
    def __init__(self, gateway: Gateway, intake: Intake, *, longest_seconds: float) -> None:
        self._gateway = gateway
        self._intake = intake
        self._longest_seconds = longest_seconds

    async def Generate(
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncIterator[pb.GenerateResponse]:
        current = call.current()
        tools, asked = _tools(request), _asked(request)
        with self._intake.place():
            completion = await self._gateway.prepare(
                caller=current.caller,
                request_id=current.request_id,
                model=request.model,
                prompt=_prompt(request, tools),
                asked=asked if tools is None else tools.constrained(asked),
            )
            seconds = min(context.time_remaining() or self._longest_seconds, self._longest_seconds)
            first = True
            stream = self._gateway.stream(completion, seconds=seconds)
            async with aclosing(stream if tools is None else with_calls(stream, tools)) as pieces:
                async for piece in pieces:
                    yield _to_wire(piece, completion, first=first)
                    first = False

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        tenant = call.current().caller.acting_for("")
        bases, adapters = await self._gateway.models(tenant)
        contexts = {base.name: base.context_tokens for base in bases}
        models = [
            pb.Model(
                id=base.name,
                owned_by="lorikeet",
                created_seconds=base.created_seconds,
                context_tokens=base.context_tokens,
            )
            for base in bases
        ]
        models += [
            pb.Model(
                id=adapter.name,
                parent=adapter.base_model,
                owned_by=adapter.owner,
                created_seconds=adapter.created_seconds,
                context_tokens=contexts.get(adapter.base_model, 0),
            )
            for adapter in adapters
        ]
        return pb.ListModelsResponse(models=models)


def _prompt(request: pb.GenerateRequest, tools: Tools | None) -> Prompt:
    match request.WhichOneof("input"):
        case "prompt":
            return request.prompt
        case "tokens":
            return tuple(request.tokens.ids)
        case "chat" if request.chat.messages:
            messages = tuple(_message(message) for message in request.chat.messages)
            return Conversation(messages, () if tools is None else tools.functions)
        case "chat":
            raise InvalidRequest.of("chat.messages", "must not be empty")
        case _:
            raise InvalidRequest.of("input", "give a prompt, tokens or a chat")


def _message(message: pb.ChatMessage) -> ChatMessage:
    calls = tuple(ToolCall(made.id, made.name, made.arguments) for made in message.tool_calls)
    content = None if calls and not message.content else message.content
    return ChatMessage(message.role, content, calls, message.tool_call_id, message.name)


def _tools(request: pb.GenerateRequest) -> Tools | None:
    if request.tools and request.WhichOneof("input") != "chat":
        raise InvalidRequest.of("tools", "only go with a chat")
    functions = [
        Function(
            tool.name,
            tool.description,
            _schema(tool.parameters, f"tools[{index}].parameters") if tool.parameters else None,
        )
        for index, tool in enumerate(request.tools)
    ]
    choice: Must | str = _MUST.get(request.tool_choice.mode, Must.AUTO)
    if request.tool_choice.WhichOneof("choice") == "name":
        choice = request.tool_choice.name
    several = request.parallel_tool_calls or not request.HasField("parallel_tool_calls")
    return offered(functions, choice, parallel=several)


def _schema(text: str, field: str) -> dict[str, Any]:
    found = loads(text, field)
    if not isinstance(found, dict):
        raise InvalidRequest.of(field, "must be a JSON object")
    return found


def _asked(request: pb.GenerateRequest) -> Asked:
    sampling = request.sampling
    within = request.HasField("first_token_within_ms")
    return Asked(
        first_token_within_ms=request.first_token_within_ms if within else None,
        share_prefix=request.share_prefix,
        service_tier=wire.tier_from_wire(request.service_tier),
        max_tokens=sampling.max_tokens if sampling.HasField("max_tokens") else None,
        seed=sampling.seed if sampling.HasField("seed") else None,
        **wire.rules_from_wire(sampling).values(),
    )


def _to_wire(piece: TextPiece, completion: Completion, *, first: bool) -> pb.GenerateResponse:
    response = pb.GenerateResponse(
        text=piece.text,
        tokens=piece.tokens,
        logprobs=[_position(position, completion) for position in piece.logprobs],
        finish_reason=wire.finish_to_wire(piece.finish_reason),
        adapter_digest=(completion.job.adapter or "") if first else "",
        service_tier=wire.tier_to_wire(completion.tier if first else None),
        tool_calls=[
            pb.ToolCall(index=made.index, id=made.id, name=made.name, arguments=made.arguments)
            for made in piece.calls
        ],
    )
    if piece.finish_reason is not None:
        response.usage.prompt_tokens = len(completion.job.prompt)
        response.usage.completion_tokens = piece.completion_tokens
        response.batch.CopyFrom(wire.batch_to_wire(piece.batch or BatchFacts()))
    return response


def _position(
    position: PositionLogprobs, completion: Completion
) -> generation_pb2.PositionLogprobs:
    return generation_pb2.PositionLogprobs(
        chosen=_token(position.chosen, completion),
        top=[_token(token, completion) for token in position.top],
    )


def _token(token: TokenLogprob, completion: Completion) -> generation_pb2.TokenLogprob:
    text, raw = token_text(completion.base.tokenizer, token.token)
    return generation_pb2.TokenLogprob(
        token=token.token, logprob=token.logprob, text=text, bytes=raw
    )
