"""kill -9 of the gateway in the middle of streams: what clients were told is on the books, once."""

import os
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import pytest

from lorikeet.gateway.v1 import usage_service_pb2 as pb
from lorikeet.gateway.v1 import usage_service_pb2_grpc as rpc
from tests.integration.conftest import BASE, Running, bearer

KILLS = int(os.environ.get("LORIKEET_KILLS", "2"))
TENANT = "bookish"
LONG = 400  # tokens: none of these ends before the kill


@dataclass(slots=True)
class Told:
    """What a client knows of its request."""

    asked_id: str
    most: int
    tokens: int = 0
    finished: bool = False


def stream(breakable: Running, told: Told, begun: threading.Event) -> Told:
    metadata = (*bearer(breakable.keys[TENANT]), ("x-request-id", told.asked_id))
    request = breakable.ask(BASE, "Count.", max_tokens=told.most, ignore_eos=True)
    try:
        for piece in breakable.gateway.Generate(request, metadata=metadata):
            told.tokens += len(piece.tokens)
            begun.set()
            if piece.HasField("usage"):
                assert piece.usage.completion_tokens == told.tokens
                told.finished = True
    except grpc.RpcError:
        assert not told.finished
    finally:
        begun.set()
    return told


def books(breakable: Running) -> list[pb.RequestRecord]:
    found: list[pb.RequestRecord] = []
    request = pb.ListRequestsRequest(page_size=1000)
    stub = rpc.UsageServiceStub(breakable.channel)
    while True:
        page = stub.ListRequests(
            request, metadata=bearer(breakable.keys[TENANT]), wait_for_ready=True
        )
        found += page.requests
        request.page_token = page.next_page_token
        if not request.page_token:
            return found


def closed_books(breakable: Running) -> list[pb.RequestRecord]:
    """Once the dead gateway's lease has run out."""
    deadline = time.monotonic() + 60
    while not all(row.outcome for row in books(breakable)):
        assert time.monotonic() < deadline, "rows are left open"
        time.sleep(0.2)
    return books(breakable)


def a_round_that_is_killed(breakable: Running) -> list[Told]:
    """Streams that end before the kill, some that may, and some that do not."""
    lengths = [3, 5, 8, 40, 41, 42, LONG, LONG + 1]
    told = [Told(secrets.token_hex(8), most) for most in lengths]
    with ThreadPoolExecutor(len(told)) as pool:
        begun = [threading.Event() for _ in told]
        streams = [pool.submit(stream, breakable, *each) for each in zip(told, begun, strict=True)]
        assert all(each.wait(60) for each in begun)
        for each in streams[:3]:
            each.result(60)
        marked = {one.asked_id for one in told[-2:]}
        while not marked <= {row.asked_id for row in books(breakable) if row.completion_tokens}:
            time.sleep(0.1)
        breakable.kill("gateway")
        return [each.result(60) for each in streams]


@pytest.mark.timeout(120 + 60 * KILLS)
def test_what_was_finished_is_on_the_books_once_with_its_tokens(breakable: Running) -> None:
    breakable.add_tenant(TENANT)
    told: dict[str, Told] = {}
    for _ in range(KILLS):
        told |= {each.asked_id: each for each in a_round_that_is_killed(breakable)}
        breakable.suite.launch("gateway")
        rows = closed_books(breakable)
        assert len({row.asked_id for row in rows}) == len(rows)
        by_id = {row.asked_id: row for row in rows}
        assert set(by_id) == set(told)  # each of them delivered something
        for asked_id, each in told.items():
            row = by_id[asked_id]
            if each.finished:
                assert (row.outcome, row.completion_tokens) == ("LENGTH", each.most)
            elif row.outcome == "LOST":
                assert row.completion_tokens < each.most
                assert not row.HasField("total_us")
            else:  # it was closed, and killed before it could say so
                assert (row.outcome, row.completion_tokens) == ("LENGTH", each.most)
            began = row.HasField("first_token_us")
            cost = row.prompt_tokens + 2 * row.completion_tokens
            assert row.charge == (cost if began else 0)
        lost = [row for row in rows if row.outcome == "LOST"]
        assert len(lost) >= 2
        assert any(row.completion_tokens for row in lost)
