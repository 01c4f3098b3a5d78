"""What every gRPC server of the suite is set to."""

import asyncio
import time
from typing import Any

import grpc

from services.runtime.server import SERVER_OPTIONS

CALLS = 2000


async def echo(request: bytes, context: Any) -> bytes:
    return request


async def test_calls_that_come_while_the_loop_is_busy_are_all_answered() -> None:
    server = grpc.aio.server(options=SERVER_OPTIONS)
    handler: Any = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Echo", {"Say": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        say: Any = channel.unary_unary("/test.Echo/Say")
        calls = [say.future(b"x") for _ in range(CALLS)]
        time.sleep(0.5)  # noqa: ASYNC251  # they come, and nobody takes them
        codes = await asyncio.to_thread(lambda: {call.code() for call in calls})
    await server.stop(0)
    assert codes == {grpc.StatusCode.OK}
