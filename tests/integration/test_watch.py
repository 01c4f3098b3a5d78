"""Whoever follows the store, over the gateway and at the store: real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2_grpc as rpc
from services.cli.connection import CHANNEL_OPTIONS, Metadata
from services.runtime.client import bearer as as_service
from tests.integration.conftest import BASE, EXAMPLES, Running, bearer, soon

LORIKEET = str(Path(sys.executable).parent / "lorikeet")


def lifecycle(running: Running) -> Any:
    return rpc.AdapterLifecycleServiceStub(running.channel)


def begun(stub: Any, who: Metadata) -> tuple[Any, int]:
    """A call that follows from now on, and its first cursor."""
    call = stub.Watch(pb.WatchRequest(), metadata=who, timeout=60)
    first = next(call)
    assert not first.HasField("change")
    return call, first.cursor


def followed(running: Running, tenant: str = "acme") -> tuple[Any, int]:
    return soon(lambda: begun(lifecycle(running), bearer(running.keys[tenant])))


def promote(running: Running, version: str) -> int:
    """The generation that it made."""
    request = pb.PromoteRequest(adapter="style", version=version)
    who = bearer(running.keys["acme"])
    return int(lifecycle(running).Promote(request, metadata=who).alias.generation)


def changes(call: Any, count: int) -> list[pb.WatchResponse]:
    found: list[pb.WatchResponse] = []
    while len(found) < count:
        response = next(call)
        if response.HasField("change"):
            found.append(response)
    return found


def test_a_tenant_follows_its_own_and_nobody_elses(breakable: Running) -> None:
    stub = lifecycle(breakable)
    calls = {tenant: followed(breakable, tenant)[0] for tenant in ("acme", "friend", "stranger")}
    who = bearer(breakable.keys["acme"])
    promote(breakable, "1")
    stub.ShareAdapter(pb.ShareAdapterRequest(adapter="style", shared_with="friend"), metadata=who)
    promote(breakable, "2")
    stub.UnshareAdapter(
        pb.UnshareAdapterRequest(adapter="style", shared_with="friend"), metadata=who
    )
    promote(breakable, "1")
    stub.ShareAdapter(pb.ShareAdapterRequest(adapter="style", shared_with="*"), metadata=who)
    stub.UnshareAdapter(pb.UnshareAdapterRequest(adapter="style", shared_with="*"), metadata=who)
    mine = changes(calls["acme"], 7)
    assert [response.cursor for response in mine] == sorted({told.cursor for told in mine})
    numbers = [response.change.number for response in mine if response.change.alias]
    assert numbers == [1, 2, 1]
    # What came while it was not shared, or is not any more, is not theirs to know.
    kinds = [response.change.kind for response in changes(calls["friend"], 4)]
    assert set(kinds) <= {
        pb.CHANGE_KIND_SHARED,
        pb.CHANGE_KIND_UNSHARED,
        pb.CHANGE_KIND_ALIAS_MOVED,
    }
    theirs = changes(calls["stranger"], 2)
    assert [told.change.shared_with for told in theirs] == ["*", "*"]
    for call in calls.values():
        call.cancel()


def test_the_operator_follows_everything_or_a_tenant(breakable: Running) -> None:
    stub, who = lifecycle(breakable), bearer(breakable.operator)
    everything = stub.Watch(pb.WatchRequest(), metadata=who, timeout=60)
    a_tenants = stub.Watch(pb.WatchRequest(tenant="friend"), metadata=who, timeout=60)
    for call in (everything, a_tenants):
        assert not next(call).HasField("change")
    breakable.upload("friend", "theirs", EXAMPLES / "pirate")
    promote(breakable, "2")
    assert [told.change.tenant for told in changes(everything, 2)] == ["friend", "acme"]
    assert changes(a_tenants, 1)[0].change.digest
    everything.cancel()
    a_tenants.cancel()


def test_a_cursor_survives_the_stores_death_and_a_wrong_one_is_refused(breakable: Running) -> None:
    stub, who = lifecycle(breakable), bearer(breakable.keys["acme"])
    call, cursor = followed(breakable)
    first = promote(breakable, "1")
    breakable.kill("adapter_store")
    with pytest.raises(grpc.RpcError) as lost:
        changes(call, 2)
    assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
    breakable.suite.launch("adapter_store")
    second = soon(lambda: promote(breakable, "2"))
    again = stub.Watch(pb.WatchRequest(after=cursor), metadata=who, timeout=60)
    assert [told.change.generation for told in changes(again, 2)] == [first, second]
    again.cancel()
    with pytest.raises(grpc.RpcError) as refused:
        next(stub.Watch(pb.WatchRequest(after=1 << 40), metadata=who, timeout=60))
    assert refused.value.code() is grpc.StatusCode.OUT_OF_RANGE


def test_inference_goes_on_while_the_store_is_away(breakable: Running) -> None:
    """By aliases too, for whoever asked before; and nothing is guessed."""

    def answer(model: str, tenant: str = "acme") -> str:
        ask = breakable.ask(model, "How do I boil an egg?")
        return "".join(piece.text for piece in breakable.generate(ask, tenant))

    def refusal(model: str, tenant: str = "acme") -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as refused:
            answer(model, tenant)
        code: grpc.StatusCode = refused.value.code()
        return code

    pirate, styled = answer("style@1"), answer("style@2")
    assert pirate != styled
    promote(breakable, "1")
    assert answer("style") == pirate
    time.sleep(1)  # else the gateway may not have been told yet, and would then know nothing
    assert answer("style@production") == answer("style") == answer("style@1") == pirate
    breakable.kill("adapter_store")
    for _ in range(3):
        assert answer("style@production") == answer("style") == pirate
        assert answer(BASE)
    for model, tenant in (("style@2", "acme"), ("nothing", "acme"), ("acme/style", "friend")):
        assert refusal(model, tenant) is grpc.StatusCode.UNAVAILABLE
    breakable.suite.launch("adapter_store")
    call, _ = followed(breakable)
    call.cancel()
    assert refusal("nothing") is grpc.StatusCode.NOT_FOUND
    assert refusal("acme/style", "friend") is grpc.StatusCode.NOT_FOUND
    for version, expected in (("2", styled), ("1", pirate)):
        promote(breakable, version)
        assert answer("style") == expected


@pytest.mark.parametrize("name", ["adapter_store", "gateway"])
def test_a_service_that_stops_ends_the_streams_and_does_not_wait_for_them(
    breakable: Running, name: str
) -> None:
    address = (
        breakable.suite.addresses.store
        if name == "adapter_store"
        else breakable.suite.addresses.gateway
    )
    token = json.loads((breakable.suite.home / "secrets.json").read_text())
    who = as_service(token["service_token"] if name == "adapter_store" else token["operator_token"])
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        stub: Any = rpc.AdapterLifecycleServiceStub(channel)
        call, _ = soon(lambda: begun(stub, who))
        process = breakable.suite.processes[name]
        process.terminate()
        list(call)  # it ends well
        assert call.code() is grpc.StatusCode.OK
        assert process.wait(timeout=15) == 0
    breakable.suite.launch(name)


@pytest.mark.parametrize("output", ["json", "table"])
def test_the_command_prints_a_line_a_change_until_it_is_interrupted(
    breakable: Running, output: str, tmp_path: Path
) -> None:
    environment = os.environ | {
        "LORIKEET_HOME": str(tmp_path),
        "LORIKEET_SERVER": breakable.suite.addresses.gateway,
        "LORIKEET_KEY": breakable.keys["acme"],
    }
    call, since = followed(breakable)
    call.cancel()
    command = [LORIKEET, "adapters", "watch", "-o", output, "--after", str(since)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            for version in ("1", "2"):
                request = pb.SetAliasRequest(adapter="style", alias=output, version=version)
                lifecycle(breakable).SetAlias(request, metadata=bearer(breakable.keys["acme"]))
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(2)]
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=15) == 0
        finally:
            process.kill()
    if output == "json":
        last = json.loads(lines[-1])
        assert (last["change"]["generation"], int(last["cursor"]) > since) == (2, True)
    else:
        assert "alias moved acme/style@table version 2 (" in lines[-1]
