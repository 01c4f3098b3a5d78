"""One front door: other services' methods, passed on byte for byte to whoever may call them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import grpc
from google.protobuf import descriptor_pool

from services.runtime import call
from services.runtime.client import Channels, bearer
from services.runtime.interceptors import Context, Handler
from services.runtime.status import from_rpc_error

_Forward = Callable[..., Awaitable[bytes]]


class Proxy(grpc.GenericRpcHandler):
    """On the wire a method is one message each way or a stream of them: two handlers serve all.
    Of a service with several replicas a method of single messages goes to one that is there."""

    def __init__(self, routes: Mapping[str, Channels], token: str) -> None:
        """`routes`: full method name to the channels of the service that has it."""
        self._token = token
        self._handlers = {
            method: self._streaming(channels.current.stream_stream(method))
            if _streams(method)
            else self._unary(method, channels)
            for method, channels in routes.items()
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        return self._handlers.get(handler_call_details.method)

    def _unary(self, method: str, channels: Channels) -> Handler:
        forwards: dict[grpc.aio.Channel, _Forward] = {
            channel: channel.unary_unary(method) for channel in channels.every
        }

        async def behaviour(request: bytes, context: Context) -> bytes:
            for tries_left in reversed(range(len(forwards))):
                channel = channels.current
                try:
                    return await forwards[channel](
                        request, metadata=self._metadata(), timeout=context.time_remaining()
                    )
                except grpc.aio.AioRpcError as error:
                    if not (tries_left and error.code() is grpc.StatusCode.UNAVAILABLE):
                        raise from_rpc_error(error) from error
                    channels.leave(channel)
            raise AssertionError("there is a channel")

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
