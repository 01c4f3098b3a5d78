"""Clients that go away over HTTP: nothing stays behind."""

import json
import socket

import httpx
import pytest

from tests.integration.conftest import BASE, Running

LONG = {
    "model": BASE,
    "messages": [{"role": "user", "content": "Count to a thousand."}],
    "max_tokens": 2000,
    "temperature": 0,
    "ignore_eos": True,
}


def headers(running: Running) -> dict[str, str]:
    return {
        "authorization": f"Bearer {running.keys['acme']}",
        "content-type": "application/json",
    }


@pytest.mark.parametrize("choices", [1, 3])
def test_a_stream_that_is_closed_frees_its_pages(running: Running, choices: int) -> None:
    before = running.quiet().free_pages
    url = f"{running.http}/chat/completions"
    body = LONG | {"stream": True, "n": choices}
    with httpx.stream("POST", url, json=body, headers=headers(running), timeout=60) as response:
        lines = response.iter_lines()
        for _ in range(8):
            next(lines)
        running.busy(choices)
    report = running.quiet(seconds=5)
    assert report.free_pages == before == report.total_pages


def test_a_whole_answer_that_nobody_waits_for_is_given_up(running: Running) -> None:
    before = running.quiet()
    host, _, port = running.suite.addresses.http.partition(":")
    body = json.dumps(LONG).encode()
    lines = [
        b"POST /v1/chat/completions HTTP/1.1",
        f"Host: {host}".encode(),
        *(f"{name}: {value}".encode() for name, value in headers(running).items()),
        f"Content-Length: {len(body)}".encode(),
    ]
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        running.busy(1)
    report = running.quiet(seconds=5)
    assert report.free_pages == before.free_pages
    assert report.steps - before.steps < 1000
