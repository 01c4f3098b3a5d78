"""One front door: other services' methods, passed on byte for byte to whoever may call them."""

from collections.abc import AsyncIterator, Mapping

import grpc

from services.runtime import call
from services.runtime.client import bearer
from services.runtime.interceptors import Context, Handler
from services.runtime.status import from_rpc_error


class Proxy(grpc.GenericRpcHandler):
    """On the wire every method is a stream of bytes both ways, so one handler serves all."""

    def __init__(self, routes: Mapping[str, grpc.aio.Channel], token: str) -> None:
        """`routes`: full method name to the channel of the service that has it."""
        self._routes = routes
        self._token = token

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        method = handler_call_details.method
        channel = self._routes.get(method)
        return None if channel is None else self._handler(channel, method)

    def _handler(self, channel: grpc.aio.Channel, method: str) -> Handler:
        forward: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)

        async def behaviour(
            requests: AsyncIterator[bytes], context: Context
        ) -> AsyncIterator[bytes]:
            current = call.current()
            upstream = forward(
                requests,
                metadata=bearer(
                    self._token,
                    tenant=current.caller.tenant,
                    key=current.caller.key,
                    request_id=current.request_id,
                ),
                timeout=context.time_remaining(),
            )
            try:
                async for response in upstream:
                    yield response
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from error
            finally:
                upstream.cancel()

        return grpc.stream_stream_rpc_method_handler(behaviour)
