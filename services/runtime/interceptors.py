"""Around every gRPC call: identity, authorisation, errors to statuses, one log line."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from services.core.errors import InvalidRequest, ServingError
from services.core.types import RequestId
from services.runtime import call
from services.runtime.auth import Gate
from services.runtime.status import to_status

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[Any, Any]
if TYPE_CHECKING:
    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
else:  # not generic at run time
    Handler = grpc.RpcMethodHandler


def to_serving(error: Exception, **facts: str) -> ServingError:
    """What a caller is told. What we did not expect goes to the logs, with these facts."""
    if isinstance(error, ServingError):
        return error
    log.exception("call_crashed", exc_info=error, **facts)
    return ServingError("something broke on our side; the request id is in the logs")


class CallInterceptor(grpc.aio.ServerInterceptor):
    def __init__(self, gate: Gate, stopping: asyncio.Event, endless: Collection[str] = ()) -> None:
        """`endless`: streams that end well once the server is `stopping`."""
        self._gate = gate
        self._stopping = stopping
        self._endless = endless

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:  # an unknown method: gRPC answers UNIMPLEMENTED
            return handler
        method = handler_call_details.method
        around = _Around(self._gate, method, self._stopping if method in self._endless else None)
        return around.streaming(handler) if handler.response_streaming else around.unary(handler)


class _Around:
    """Wraps one method."""

    def __init__(self, gate: Gate, method: str, ended: asyncio.Event | None) -> None:
        self._gate = gate
        self._method = method
        self._ended = ended

    def unary(self, handler: Handler) -> Handler:
        inner: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary

        async def behaviour(request: Any, context: Context) -> Any:
            started = time.monotonic()
            try:
                await self._enter(context)
                response = await inner(_decoded(request), context)
            except Exception as error:
                await self._fail(context, error, started)
            except asyncio.CancelledError:
                self._log("CANCELLED", started)
                raise
            else:
                self._log("OK", started)
                return response

        make = (
            grpc.stream_unary_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make(behaviour, _tolerant(handler.request_deserializer), handler.response_serializer)

    def streaming(self, handler: Handler) -> Handler:
        inner: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream

        async def behaviour(request: Any, context: Context) -> AsyncIterator[Any]:
            started = time.monotonic()
            try:
                await self._enter(context)
                async with aclosing(self._until_ended(inner(_decoded(request), context))) as told:
                    async for response in told:
                        yield response
            except Exception as error:
                await self._fail(context, error, started)
            except (asyncio.CancelledError, GeneratorExit):
                self._log("CANCELLED", started)
                raise
            else:
                self._log("OK", started)

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_stream_rpc_method_handler
        )
        return make(behaviour, _tolerant(handler.request_deserializer), handler.response_serializer)

    def _until_ended(self, responses: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        return responses if self._ended is None else until(self._ended, responses)

    async def _enter(self, context: Context) -> None:
        metadata = {
            key: value
            for key, value in context.invocation_metadata() or ()
            if isinstance(value, str)
        }
        request_id = RequestId(metadata.get("x-request-id", "")[:64] or uuid.uuid4().hex)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        caller = await self._gate.admit(self._method, metadata)
        if caller is not None:
            call.enter(call.Call(request_id, caller))

    async def _fail(self, context: Context, error: Exception, started: float) -> None:
        """Abort the call with the error's status."""
        if isinstance(error, grpc.aio.AbortError):
            raise error
        error = to_serving(error, method=self._method)
        status = rpc_status.to_status(to_status(error))
        self._log(status.code.name, started, reason=error.reason, message=error.message)
        await context.abort_with_status(status)

    def _log(self, outcome: str, started: float, **facts: str) -> None:
        if self._method.startswith("/grpc."):
            return
        milliseconds = round((time.monotonic() - started) * 1000, 1)
        log.info(
            "call_finished",
            method=self._method,
            outcome=outcome,
            milliseconds=milliseconds,
            **facts,
        )


async def until(
    ended: asyncio.Event, items: AsyncGenerator[Any, None]
) -> AsyncGenerator[Any, None]:
    """The items, until there are no more or the event happens."""
    ending = asyncio.create_task(ended.wait())
    coming: asyncio.Future[Any] = ending
    try:
        while True:
            coming = asyncio.ensure_future(anext(items))
            await asyncio.wait((ending, coming), return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                return
            try:
                item = coming.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        ending.cancel()
        coming.cancel()
        await asyncio.gather(ending, coming, return_exceptions=True)
        await items.aclose()


def _tolerant(decode: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """gRPC calls a message that cannot be decoded an internal error; it is the caller's."""

    def decoded(data: bytes) -> Any:
        try:
            return data if decode is None else decode(data)
        except DecodeError as error:
            return error

    return decoded


def _decoded(request: Any) -> Any:
    """The message, or the messages of a stream. Raises InvalidRequest for one that is none."""
    if isinstance(request, AsyncIterator):
        return _each_decoded(request)
    if isinstance(request, DecodeError):
        raise InvalidRequest.of("request", "is not a good message (text must be UTF-8)")
    return request


async def _each_decoded(requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    async for request in requests:
        yield _decoded(request)
