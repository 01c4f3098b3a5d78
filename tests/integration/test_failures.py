"""Processes that die or are told to stop while streams run."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import openai
import pytest
from grpc_status import rpc_status

from tests.integration.conftest import BASE, EXAMPLES, Running, start

LONG: Any = {"max_tokens": 1500, "ignore_eos": True}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A suite that these tests may break."""
    running = start(tmp_path_factory.mktemp("own") / "home")
    try:
        running.add_tenant("acme")
        running.upload("acme", "pirate", EXAMPLES / "pirate")
        yield running
    finally:
        running.channel.close()
        running.suite.stop()


def kill(running: Running, name: str) -> None:
    process = running.suite.processes[name]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def text_of(call: Any) -> str:
    return "".join(piece.text for piece in call)


def soon(answers: Any, *, seconds: float = 15.0) -> Any:
    """What the call gives once it stops failing as unavailable."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return answers()
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            if code is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_a_worker_that_is_killed_ends_its_streams_with_a_clear_error(own: Running) -> None:
    url = f"{own.http}/chat/completions"
    body = {"model": BASE, "messages": [{"role": "user", "content": "Count."}], "stream": True}
    headers = {"authorization": f"Bearer {own.keys['acme']}"}
    call = own.generate(own.ask(BASE, "Count.", **LONG))
    with httpx.stream("POST", url, json=body | LONG, headers=headers, timeout=60) as response:
        lines = response.iter_lines()
        next(call)
        begun = [next(lines) for _ in range(6)]
        assert begun
        kill(own, "gpu_worker")
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        rest = "".join(lines)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "the worker was lost in the middle of the stream"
    status = rpc_status.from_call(error)
    assert status is not None
    kinds = {detail.TypeName() for detail in status.details}
    assert {"google.rpc.ErrorInfo", "google.rpc.RetryInfo"} <= kinds
    assert "the worker was lost in the middle of the stream" in rest
    assert "[DONE]" not in rest


def test_without_a_worker_the_answer_is_unavailable_and_then_all_is_well(own: Running) -> None:
    def ask() -> str:
        return text_of(own.generate(own.ask("pirate", "How do I boil an egg?")))

    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        ask()
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - started < 10
    client = openai.OpenAI(base_url=own.http, api_key=own.keys["acme"], max_retries=0)
    with pytest.raises(openai.InternalServerError) as refused:
        client.completions.create(model=BASE, prompt="x", max_tokens=1)
    assert refused.value.status_code == 503
    assert refused.value.response.headers["retry-after"]
    own.suite.launch("gpu_worker")
    assert soon(ask).startswith("Ahoy")
    report = own.quiet()
    assert report.free_pages == report.total_pages


def test_a_stream_outlives_the_scheduler_and_the_store(own: Running) -> None:
    call = own.generate(own.ask(BASE, "Count.", max_tokens=150, ignore_eos=True))
    next(call)
    kill(own, "scheduler")
    kill(own, "adapter_store")
    last = list(call)[-1]
    assert last.usage.completion_tokens == 150
    own.suite.launch("scheduler")
    own.suite.launch("adapter_store")
    ask = own.ask("pirate", "How do I boil an egg?")
    assert soon(lambda: text_of(own.generate(ask))).startswith("Ahoy")


def test_what_was_acknowledged_survives_the_gateway(own: Running) -> None:
    own.add_tenant("late")
    kill(own, "gateway")
    own.suite.launch("gateway")
    assert soon(lambda: text_of(own.generate(own.ask(BASE, "Hi"), tenant="late")))


def test_a_service_that_is_asked_to_stop_lets_its_streams_end(own: Running) -> None:
    """The gateway and the worker both; new calls are refused meanwhile."""

    def stream(begun: threading.Event) -> int:
        call = own.generate(own.ask(BASE, "Count.", max_tokens=100, ignore_eos=True))
        next(call)
        begun.set()
        return int(list(call)[-1].usage.completion_tokens)

    for name in ("gpu_worker", "gateway"):
        begun = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            count: Future[int] = pool.submit(stream, begun)
            assert begun.wait(15)
            process = own.suite.processes[name]
            process.terminate()
            assert count.result(timeout=30) == 100
            assert process.wait(timeout=15) == 0
        own.suite.launch(name)
        soon(lambda: text_of(own.generate(own.ask(BASE, "Hi"))))
    for name in ("scheduler", "adapter_store"):
        own.suite.processes[name].terminate()
        assert own.suite.processes[name].wait(timeout=15) == 0
