"""One front door: other services' methods, passed on byte for byte to whoever may call them."""

from collections.abc import AsyncIterator, Mapping

import grpc
from google.protobuf import descriptor_pool

from services.runtime import call
from services.runtime.client import bearer
from services.runtime.interceptors import Context, Handler
from services.runtime.status import from_rpc_error


class Proxy(grpc.GenericRpcHandler):
    """On the wire a method is one message each way or a stream of them: two handlers serve all."""

    def __init__(self, routes: Mapping[str, grpc.aio.Channel], token: str) -> None:
        """`routes`: full method name to the channel of the service that has it."""
        self._token = token
        self._handlers = {
            method: self._streaming(channel.stream_stream(method))
            if _streams(method)
            else self._unary(channel.unary_unary(method))
            for method, channel in routes.items()
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        return self._handlers.get(handler_call_details.method)

    def _unary(self, forward: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]) -> Handler:
        async def behaviour(request: bytes, context: Context) -> bytes:
            try:
                return await forward(
                    request, metadata=self._metadata(), timeout=context.time_remaining()
                )
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from error

        return grpc.unary_unary_rpc_method_handler(behaviour)

    def _streaming(self, forward: grpc.aio.StreamStreamMultiCallable[bytes, bytes]) -> Handler:
        async def behaviour(
            requests: AsyncIterator[bytes], context: Context
        ) -> AsyncIterator[bytes]:
            upstream = forward(
                requests, metadata=self._metadata(), timeout=context.time_remaining()
            )
            try:
                async for response in upstream:
                    yield response
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from error
            finally:
                upstream.cancel()

        return grpc.stream_stream_rpc_method_handler(behaviour)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        current = call.current()
        return bearer(
            self._token,
            tenant=current.caller.tenant,
            key=current.caller.key,
            request_id=current.request_id,
        )


def _streams(method: str) -> bool:
    """Whether "/package.Service/Method" has a stream on either side."""
    found = descriptor_pool.Default().FindMethodByName(method[1:].replace("/", "."))
    return bool(found.client_streaming or found.server_streaming)
