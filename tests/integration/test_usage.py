"""What was used, over gRPC and on the command line, of a running suite."""

import csv
from pathlib import Path
from typing import Any

import grpc
import openai
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from lorikeet.gateway.v1 import usage_service_pb2 as pb
from lorikeet.gateway.v1 import usage_service_pb2_grpc as rpc
from services.cli.app import app
from tests.integration.conftest import BASE, EXAMPLES, Running, bearer, parsed


@pytest.fixture(scope="module")
def used(running: Running) -> dict[str, Any]:
    """A tenant's three requests: two over gRPC, one of them with an adapter; one over HTTP."""
    running.add_tenant("user")
    running.upload("user", "pirate", EXAMPLES / "pirate")
    for name, model in (("first", BASE), ("second", "pirate")):
        call = running.gateway.Generate(
            running.ask(model, "Hi", max_tokens=5, ignore_eos=True),
            metadata=(*bearer(running.keys["user"]), ("x-request-id", name)),
        )
        last = list(call)[-1]
        assert last.usage.completion_tokens == 5
    client = openai.OpenAI(base_url=running.http, api_key=running.keys["user"], max_retries=0)
    raw = client.chat.completions.with_raw_response.create(
        model=BASE,
        messages=[{"role": "user", "content": "Hi"}],
        n=2,
        max_tokens=3,
        extra_body={"ignore_eos": True},
    )
    return {"last": last, "http_id": raw.headers["x-request-id"], "http": raw.parse().usage}


@pytest.fixture
def usage(running: Running) -> Any:
    return rpc.UsageServiceStub(running.channel)


def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    code: grpc.StatusCode = error.code()
    return code


def test_the_books_agree_with_what_clients_were_told(
    running: Running, usage: Any, used: dict[str, Any]
) -> None:
    me = bearer(running.keys["user"])
    request = pb.GetUsageRequest(group_by=[pb.USAGE_DIMENSION_MODEL, pb.USAGE_DIMENSION_DAY])
    sums = {each.model: each for each in usage.GetUsage(request, metadata=me).sums}
    assert {model: each.requests for model, each in sums.items()} == {"pirate": 1, BASE: 3}
    assert sums["pirate"].prompt_tokens == used["last"].usage.prompt_tokens
    assert sums["pirate"].completion_tokens == 5
    assert sums["pirate"].charge == sums["pirate"].prompt_tokens + 2 * 5
    assert sums[BASE].completion_tokens == 5 + used["http"].completion_tokens
    listed = usage.ListRequests(pb.ListRequestsRequest(), metadata=me).requests
    assert [row.asked_id for row in listed][-2:] == ["second", "first"]
    assert {row.outcome for row in listed} == {"LENGTH"}
    assert {row.base_model for row in listed} == {BASE}
    key = running.keys["user"].split("_")[1]
    assert {row.key for row in listed} == {key}
    for row in listed:
        assert 0 < row.first_token_us <= row.total_us


def test_a_request_is_explained_by_any_of_its_names(
    running: Running, usage: Any, used: dict[str, Any]
) -> None:
    me = bearer(running.keys["user"])
    (by_name,) = usage.Explain(pb.ExplainRequest(request_id="second"), metadata=me).explanations
    assert by_name.request.model == "pirate"
    assert "ended with LENGTH" in " ".join(by_name.sentences)
    request = pb.ExplainRequest(request_id=by_name.request.id)
    assert usage.Explain(request, metadata=me).explanations == [by_name]
    request = pb.ExplainRequest(request_id=used["http_id"])
    (over_http,) = usage.Explain(request, metadata=me).explanations
    assert over_http.request.completion_tokens == 3


def test_another_tenant_sees_nothing_of_it(
    running: Running, usage: Any, used: dict[str, Any]
) -> None:
    other = bearer(running.keys["umbrella"])
    operator = bearer(running.operator)
    theirs = pb.UsageFilter(tenant="user")
    for method, request in (
        (usage.GetUsage, pb.GetUsageRequest(filter=theirs)),
        (usage.ListRequests, pb.ListRequestsRequest(filter=theirs)),
        (usage.Explain, pb.ExplainRequest(tenant="user", request_id="second")),
    ):
        assert code_of(lambda m=method, r=request: m(r, metadata=other)) is (
            grpc.StatusCode.PERMISSION_DENIED
        )
        assert code_of(lambda m=method, r=request: m(r)) is grpc.StatusCode.UNAUTHENTICATED
        method(request, metadata=operator)
    request = pb.ExplainRequest(request_id="second")
    unknown = code_of(lambda: usage.Explain(request, metadata=other))
    assert unknown is grpc.StatusCode.NOT_FOUND
    everybody = pb.GetUsageRequest(group_by=[pb.USAGE_DIMENSION_TENANT])
    seen = {each.tenant for each in usage.GetUsage(everybody, metadata=other).sums}
    assert seen <= {"umbrella"}
    assert "user" in {each.tenant for each in usage.GetUsage(everybody, metadata=operator).sums}


def test_what_is_wrong_is_named(running: Running, usage: Any) -> None:
    me = bearer(running.keys["acme"])
    for method, request in (
        (usage.GetUsage, pb.GetUsageRequest(group_by=[99])),  # type: ignore[list-item]
        (usage.GetUsage, pb.GetUsageRequest(group_by=[0])),  # type: ignore[list-item]
        (usage.ListRequests, pb.ListRequestsRequest(order=9)),  # type: ignore[arg-type]
        (usage.ListRequests, pb.ListRequestsRequest(page_token="zz")),
        (usage.ListRequests, pb.ListRequestsRequest(page_size=-1)),
        (usage.Explain, pb.ExplainRequest()),
    ):
        assert code_of(lambda m=method, r=request: m(r, metadata=me)) is (
            grpc.StatusCode.INVALID_ARGUMENT
        )


@pytest.fixture
def run(
    running: Running, used: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Any:
    monkeypatch.setenv("LORIKEET_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("LORIKEET_SERVER", running.suite.addresses.gateway)
    monkeypatch.setenv("LORIKEET_KEY", running.keys["user"])
    monkeypatch.setenv("LORIKEET_OPERATOR_TOKEN", running.operator)
    monkeypatch.setenv("COLUMNS", "250")
    return lambda *arguments: CliRunner().invoke(app, [str(each) for each in arguments])


def test_lorikeet_usage_shows_sums(run: Any) -> None:
    assert {s["model"]: s["requests"] for s in parsed(run("usage", "-o", "json"))} == {
        BASE: "3",
        "pirate": "1",
    }
    shown = run("usage", "--by", "tenant", "--by", "day", "--since", "1h", "--tenant", "user")
    assert shown.exit_code == 0
    assert "user" in shown.stdout
    assert "completion_tokens" in shown.stdout
    shown = run("usage", "--by", "model", "--by", "tier").stdout.splitlines()
    assert [line.split()[:2] for line in shown] == [
        ["model", "tier"],
        ["pirate", "default"],
        [BASE, "default"],
    ]
    assert parsed(run("usage", "--until", "1h", "-o", "json")) == []
    everybody = parsed(run("usage", "--by", "tenant", "--all", "-o", "json"))
    assert "user" in {each["tenant"] for each in everybody}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_export_has_every_request_once(run: Any, tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"usage.{kind}"
    said = run("usage", "export", file)
    assert said.exit_code == 0, said.output
    assert "4 requests" in said.stdout
    if kind == "csv":
        with file.open(newline="") as lines:
            rows: list[dict[str, Any]] = list(csv.DictReader(lines))
    else:
        rows = parquet.read_table(file).to_pylist()
    assert [row["asked_id"] for row in rows][:2] == ["first", "second"]
    assert [int(row["completion_tokens"]) for row in rows] == [5, 5, 3, 3]
    assert {row["outcome"] for row in rows} == {"LENGTH"}
    assert {row["tier"] for row in rows} == {"default"}
    assert all(int(row["total_us"]) > 0 for row in rows)
    again = run("usage", "export", file)
    assert again.exit_code == 1
    assert "exists" in again.output
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [file.name]


def test_an_export_that_fails_leaves_nothing(run: Any, tmp_path: Path) -> None:
    before = list(tmp_path.iterdir())
    for arguments in (
        ("usage", "export", tmp_path / "usage.xls"),
        ("usage", "export", tmp_path / "usage.csv", "--since", "yesterday"),
        ("usage", "export", tmp_path / "usage.csv", "--key", "x" * 300),
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == before


def test_lorikeet_explain_says_it_in_sentences(run: Any) -> None:
    said = " ".join(run("explain", "second").stdout.split())
    assert "It cost" in said
    assert "ended with LENGTH" in said
    assert parsed(run("explain", "second", "-o", "json"))[0]["request"]["asked_id"] == "second"
    unknown = run("explain", "nothing")
    assert unknown.exit_code == 1
    assert "no request 'nothing'" in unknown.output
    assert run("usage", "--tenant", "x", "--all").exit_code == 2
    for command in (["usage"], ["usage", "export"], ["explain"]):
        assert "Usage" in run(*command, "--help").output
    for command in (["usage"], ["usage", "export"]):
        said = " ".join(run(*command, "--help").output.replace("│", " ").split())
        assert "priority, default or flex" in said
