"""Promote, roll back and try versions of an adapter that is being served."""

import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from typer.testing import CliRunner

from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2_grpc as rpc
from lorikeet.gateway.v1 import gateway_service_pb2 as gateway_pb
from services.cli.app import app
from tests.integration.conftest import EXAMPLES, Running, bearer

MAKER = "maker"
QUESTION = "How do I boil an egg?"


@pytest.fixture(scope="module")
def adapter(running: Running) -> str:
    """Of a tenant of its own: version 1 talks like a pirate, version 2 says JSON."""
    running.add_tenant(MAKER)
    for example in ("pirate", "json"):
        running.upload(MAKER, "style", EXAMPLES / example)
    return "style"


@pytest.fixture
def store(running: Running) -> Any:
    return rpc.AdapterLifecycleServiceStub(running.channel)


def signature(running: Running) -> str:
    """The maker, and the public part of its key."""
    return f"{MAKER}/{running.keys[MAKER].split('_')[1]}"


def answer(running: Running, model: str) -> str:
    pieces = running.generate(running.ask(model, QUESTION), MAKER)
    return "".join(piece.text for piece in pieces)


def test_the_command_line_moves_what_a_name_means(
    running: Running, adapter: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LORIKEET_HOME", str(tmp_path))
    monkeypatch.setenv("LORIKEET_SERVER", running.suite.addresses.gateway)
    monkeypatch.setenv("LORIKEET_KEY", running.keys[MAKER])

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(app, ["adapters", *arguments, "-o", "json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    pirate, styled = answer(running, "style@1"), answer(running, "style@2")
    assert pirate != styled
    assert answer(running, adapter) == styled  # the newest, as nothing is promoted yet
    assert run("promote", adapter, "1", "--reason", "ahoy")[0]["generation"] == 1
    assert answer(running, adapter) == pirate
    assert run("promote", adapter, "2", "--expect", "1")[0]["number"] == 2
    assert answer(running, adapter) == styled
    assert run("rollback", adapter)[0]["number"] == 1
    assert answer(running, adapter) == pirate
    run("alias", adapter, "next", "2")
    assert answer(running, "style@next") == styled
    canary = run("canary", adapter, "next", "--percent", "50")[0]["canary"]
    assert (canary["number"], canary["percent"]) == (2, 50)
    assert {answer(running, adapter) for _ in range(12)} == {pirate, styled}
    assert run("promote", adapter)[0]["kind"] == "ALIAS_MOVE_KIND_PROMOTE"
    assert answer(running, adapter) == styled
    assert [alias["name"] for alias in run("aliases", adapter)] == ["next", "production"]
    run("alias", adapter, "next", "--delete")
    moves = run("history", adapter)
    assert [move["generation"] for move in moves] == list(range(len(moves), 0, -1))
    assert (moves[-1]["moved_by"], moves[-1]["reason"]) == (signature(running), "ahoy")
    lost = CliRunner().invoke(app, ["adapters", "promote", adapter, "1", "--expect", "1"])
    assert lost.exit_code == 1
    assert "somebody else moved it" in lost.output


@pytest.mark.parametrize(
    "method",
    [method.name for method in pb.DESCRIPTOR.services_by_name["AdapterLifecycleService"].methods],
)
def test_no_method_opens_another_tenants_adapter(
    running: Running, adapter: str, store: Any, method: str
) -> None:
    """Every method of the service, whether this file knows it or not."""
    described = pb.DESCRIPTOR.services_by_name["AdapterLifecycleService"].methods_by_name[method]
    make: Any = getattr(pb, described.input_type.name)
    given = {"adapter": adapter, "alias": "production", "version": "1", "percent": 5}
    given |= {"shared_with": "anybody", "number": 2, "reference": adapter}
    known = {
        name: value for name, value in given.items() if name in described.input_type.fields_by_name
    }
    before = store.ListAliases(
        pb.ListAliasesRequest(adapter=adapter), metadata=bearer(running.keys[MAKER])
    )
    call = _first_answer(getattr(store, method))
    others = {"tenant": MAKER} if "tenant" in described.input_type.fields_by_name else {}
    with pytest.raises(grpc.RpcError) as named:
        call(make(**others, **known), metadata=bearer(running.keys["umbrella"]))
    assert named.value.code() is grpc.StatusCode.PERMISSION_DENIED
    if not others:  # the operator's
        return
    if method == "Watch":  # it begins with that nothing has happened yet
        assert not call(make(**known), metadata=bearer(running.keys["umbrella"])).HasField("change")
    elif method.startswith("List"):  # of their own adapter of this name, which does not exist
        assert call(make(**known), metadata=bearer(running.keys["umbrella"])).ByteSize() == 0
    else:
        with pytest.raises(grpc.RpcError) as unnamed:
            call(make(**known), metadata=bearer(running.keys["umbrella"]))
        assert unnamed.value.code() is grpc.StatusCode.NOT_FOUND
    after = store.ListAliases(
        pb.ListAliasesRequest(adapter=adapter), metadata=bearer(running.keys[MAKER])
    )
    assert after == before


def _first_answer(method: Any) -> Any:
    """Of a method that answers once, or again and again."""

    def call(request: Any, **options: Any) -> Any:
        answer = method(request, **options)
        if isinstance(answer, Message):
            return answer
        first = next(answer)
        answer.cancel()
        return first

    return call


def test_every_answer_is_one_versions_whatever_is_promoted_meanwhile(
    running: Running, adapter: str, store: Any
) -> None:
    golden = {answer(running, f"style@{number}") for number in (1, 2)}
    who = bearer(running.keys[MAKER])
    store.Promote(pb.PromoteRequest(adapter=adapter, version="1"), metadata=who)
    stop = time.monotonic() + 5

    def move() -> int:
        moves = 0
        while time.monotonic() < stop:
            store.Promote(pb.PromoteRequest(adapter=adapter, version="2"), metadata=who)
            time.sleep(0.05)
            store.Rollback(pb.RollbackRequest(adapter=adapter), metadata=who)
            time.sleep(0.05)
            moves += 2
        return moves

    def ask() -> list[str]:
        given = []
        while time.monotonic() < stop:
            given.append(answer(running, adapter))
        return given

    with ThreadPoolExecutor(9) as pool:
        mover, streams = pool.submit(move), [pool.submit(ask) for _ in range(8)]
        answers = [given for stream in streams for given in stream.result()]
    assert mover.result() > 10
    assert set(answers) == golden


def test_a_promotion_holds_for_the_next_request(running: Running, adapter: str, store: Any) -> None:
    who = bearer(running.keys[MAKER])
    pirate, styled = answer(running, "style@1"), answer(running, "style@2")
    for _ in range(5):
        for number, expected in (("1", pirate), ("2", styled)):
            store.Promote(pb.PromoteRequest(adapter=adapter, version=number), metadata=who)
            assert answer(running, adapter) == expected


def test_history_names_the_key_that_called_and_no_forged_one(
    running: Running, adapter: str, store: Any
) -> None:
    forged = (("x-lorikeet-tenant", "umbrella"), ("x-lorikeet-key", "another"))
    request = pb.PromoteRequest(adapter=adapter, version="1")
    moved = store.Promote(request, metadata=(*bearer(running.keys[MAKER]), *forged)).alias
    assert (moved.tenant, moved.moved_by) == (MAKER, signature(running))
    request = pb.PromoteRequest(tenant=MAKER, adapter=adapter, version="2")
    moved = store.Promote(request, metadata=(*bearer(running.operator), *forged)).alias
    assert (moved.tenant, moved.moved_by) == (MAKER, "operator")


def test_an_adapter_is_shared_deleted_and_brought_back(
    running: Running, adapter: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LORIKEET_HOME", str(tmp_path))
    monkeypatch.setenv("LORIKEET_SERVER", running.suite.addresses.gateway)

    def run(tenant: str, *arguments: str, fails: bool = False) -> str:
        monkeypatch.setenv("LORIKEET_KEY", running.keys[tenant])
        result = CliRunner().invoke(app, ["adapters", *arguments])
        assert (result.exit_code != 0) == fails, result.output
        return result.output

    pirate = str(EXAMPLES / "pirate")
    facts = ["--label", "team=search", "--metric", "f1=0.5", "--licence", "MIT"]
    for _ in range(2):  # the same bytes are the same version
        run(MAKER, "upload", pirate, "--name", "lent", *facts)
    (version,) = json.loads(run(MAKER, "versions", "lent", "--label", "team=search", "-o", "json"))
    assert version["provenance"] == {
        "created_by": signature(running),
        "licence": "MIT",
        "labels": {"team": "search"},
        "metrics": {"f1": 0.5},
    }
    assert json.loads(run(MAKER, "versions", "lent", "--label", "team=x", "-o", "json")) == []
    expected = answer(running, "lent")
    ask = running.ask("maker/lent", QUESTION)

    def borrowed() -> str:
        return "".join(piece.text for piece in running.generate(ask, "umbrella"))

    with pytest.raises(grpc.RpcError, match="does not exist"):
        borrowed()
    run(MAKER, "share", "lent", "umbrella")
    assert borrowed() == expected
    assert "umbrella" in run(MAKER, "shares", "lent")
    assert "lent" in run("umbrella", "list", "--shared")
    models = running.gateway.ListModels(
        gateway_pb.ListModelsRequest(), metadata=bearer(running.keys["umbrella"])
    )
    assert ("maker/lent", MAKER) in {(model.id, model.owned_by) for model in models.models}
    run("umbrella", "download", "maker/lent", str(tmp_path / "stolen"), fails=True)
    run("umbrella", "delete", "lent", fails=True)
    run(MAKER, "delete", "lent")
    with pytest.raises(grpc.RpcError, match="does not exist"):
        borrowed()
    run(MAKER, "undelete", "lent")
    assert "lent@1 is good" in run(MAKER, "verify", "lent")
    run(MAKER, "gc", fails=True)  # the operator's
    monkeypatch.setenv("LORIKEET_OPERATOR_TOKEN", running.operator)
    assert "blobs" in run(MAKER, "gc")
    assert borrowed() == expected
    run(MAKER, "unshare", "lent", "umbrella")
    with pytest.raises(grpc.RpcError, match="does not exist"):
        borrowed()


def test_a_download_goes_on_where_it_stopped_and_is_checked(
    running: Running, adapter: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LORIKEET_HOME", str(tmp_path))
    monkeypatch.setenv("LORIKEET_SERVER", running.suite.addresses.gateway)
    monkeypatch.setenv("LORIKEET_KEY", running.keys[MAKER])

    def download(to: Path) -> int:
        return CliRunner().invoke(app, ["adapters", "download", "style@1", str(to)]).exit_code

    assert download(tmp_path / "whole") == 0
    data = (tmp_path / "whole").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    part = tmp_path / f"rest.{digest[:12]}.part"
    for begun in (data[:1000], data):
        part.write_bytes(begun)
        assert download(tmp_path / "rest") == 0
        assert (tmp_path / "rest").read_bytes() == data
    part.write_bytes(b"wrong")
    assert download(tmp_path / "other") == 0
    (tmp_path / "rest").unlink()
    assert download(tmp_path / "rest") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "whole"]
