"""The queue as an operator sees it, over the wire and from the command line."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from lorikeet.gateway.v1 import queue_service_pb2 as pb
from lorikeet.gateway.v1 import queue_service_pb2_grpc as rpc
from tests.integration.conftest import BASE, Running, bearer

LORIKEET = Path(sys.executable).parent / "lorikeet"


def test_queue_top_shows_who_runs_and_what_it_was_served(running: Running) -> None:
    running.quiet()
    asked: Any = {"max_tokens": 400, "ignore_eos": True}
    calls = [
        running.generate(running.ask(BASE, "Count.", **asked), tenant="acme") for _ in range(3)
    ]
    for call in calls:
        next(call)
    environment = os.environ | {
        "LORIKEET_SERVER": running.suite.addresses.gateway,
        "LORIKEET_OPERATOR_TOKEN": running.operator,
    }
    done = subprocess.run(
        [LORIKEET, "queue", "top", "--once"],
        capture_output=True, text=True, check=False, env=environment, timeout=60,
    )  # fmt: skip
    for call in calls:
        call.cancel()
    assert done.returncode == 0, done.stderr
    assert BASE in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if " acme " in line]
    assert [cell.strip() for cell in row.strip("│ ").split("│")][:3] == ["acme", "0", "3"]
    running.quiet()


def test_only_the_operator_sees_the_queue(running: Running) -> None:
    stub: Any = rpc.QueueServiceStub(running.channel)
    with pytest.raises(grpc.RpcError) as refused:
        next(
            stub.WatchQueue(pb.WatchQueueRequest(once=True), metadata=bearer(running.keys["acme"]))
        )
    error: Any = refused.value
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
