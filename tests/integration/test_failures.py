"""Processes that die or are told to stop while streams run."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import openai
import pytest
from grpc_status import rpc_status

from services.gateway.gateway import LOST
from tests.integration.conftest import BASE, Running, soon

LONG: Any = {"max_tokens": 1500, "ignore_eos": True}


def text_of(call: Any) -> str:
    return "".join(piece.text for piece in call)


def test_a_worker_that_is_killed_ends_its_streams_with_a_clear_error(breakable: Running) -> None:
    url = f"{breakable.http}/chat/completions"
    body = {"model": BASE, "messages": [{"role": "user", "content": "Count."}], "stream": True}
    headers = {"authorization": f"Bearer {breakable.keys['acme']}"}
    call = breakable.generate(breakable.ask(BASE, "Count.", **LONG))
    with httpx.stream("POST", url, json=body | LONG, headers=headers, timeout=60) as response:
        lines = response.iter_lines()
        next(call)
        begun = [next(lines) for _ in range(6)]
        assert begun
        breakable.kill("gpu_worker")
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        rest = "".join(lines)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == LOST
    status = rpc_status.from_call(error)
    assert status is not None
    kinds = {detail.TypeName() for detail in status.details}
    assert {"google.rpc.ErrorInfo", "google.rpc.RetryInfo"} <= kinds
    assert LOST in rest
    assert "[DONE]" not in rest


def test_without_a_worker_the_answer_is_unavailable_and_then_all_is_well(
    breakable: Running,
) -> None:
    def ask() -> str:
        return text_of(breakable.generate(breakable.ask("pirate", "How do I boil an egg?")))

    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        ask()
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - started < 10
    client = openai.OpenAI(base_url=breakable.http, api_key=breakable.keys["acme"], max_retries=0)
    with pytest.raises(openai.InternalServerError) as refused:
        client.completions.create(model=BASE, prompt="x", max_tokens=1)
    assert refused.value.status_code == 503
    assert refused.value.response.headers["retry-after"]
    breakable.suite.launch("gpu_worker")
    assert soon(ask).startswith("Ahoy")
    report = breakable.quiet()
    assert soon(ask).startswith("Ahoy")
    again = breakable.quiet()
    assert again.free_pages == report.free_pages  # all but what is in the weights needs
    assert again.total_pages - again.free_pages < 10


def test_a_stream_outlives_the_scheduler_and_the_store(breakable: Running) -> None:
    call = breakable.generate(breakable.ask(BASE, "Count.", max_tokens=150, ignore_eos=True))
    next(call)
    breakable.kill("scheduler")
    breakable.kill("adapter_store")
    last = list(call)[-1]
    assert last.usage.completion_tokens == 150
    breakable.suite.launch("scheduler")
    breakable.suite.launch("adapter_store")
    ask = breakable.ask("pirate", "How do I boil an egg?")
    assert soon(lambda: text_of(breakable.generate(ask))).startswith("Ahoy")


def test_what_was_acknowledged_survives_the_gateway(breakable: Running) -> None:
    breakable.add_tenant("late")
    breakable.kill("gateway")
    breakable.suite.launch("gateway")
    assert soon(lambda: text_of(breakable.generate(breakable.ask(BASE, "Hi"), tenant="late")))


def test_a_service_that_is_asked_to_stop_lets_its_streams_end(breakable: Running) -> None:
    """The gateway and the worker both; new calls are refused meanwhile."""

    def stream(begun: threading.Event) -> int:
        call = breakable.generate(breakable.ask(BASE, "Count.", max_tokens=60, ignore_eos=True))
        next(call)
        begun.set()
        return int(list(call)[-1].usage.completion_tokens)

    for name in ("gpu_worker", "gateway"):
        begun = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            count: Future[int] = pool.submit(stream, begun)
            assert begun.wait(30)
            process = breakable.suite.processes[name]
            process.terminate()
            assert count.result(timeout=60) == 60
            assert process.wait(timeout=30) == 0
        breakable.suite.launch(name)
        soon(lambda: text_of(breakable.generate(breakable.ask(BASE, "Hi"))))
    for name in ("scheduler", "adapter_store"):
        breakable.suite.processes[name].terminate()
        assert breakable.suite.processes[name].wait(timeout=30) == 0
        breakable.suite.launch(name)
    soon(lambda: text_of(breakable.generate(breakable.ask("pirate", "Hi"))))
