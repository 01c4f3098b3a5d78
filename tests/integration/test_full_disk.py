"""An adapter store whose disk is full: a real file system of two MiB."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as rpc
from lorikeet.types.v1 import adapter_pb2
from services.cli.connection import CHANNEL_OPTIONS
from services.cli.suite import free_addresses
from services.cli.upload import upload_folder
from tests.databases import migrated
from tests.integration.conftest import EXAMPLES, bearer, smollm_modules

TOKEN = "inside"
MOUNT = 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"'


@dataclass(frozen=True, slots=True)
class Store:
    channel: grpc.Channel
    disk: Path  # the small file system, as seen from outside

    def upload(self) -> adapter_pb2.AdapterVersion:
        who = (*bearer(TOKEN), ("x-lorikeet-tenant", "acme"))
        return upload_folder(self.channel, who, EXAMPLES / "pirate", adapter="pirate")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["unshare", "-rm", "sh", "-c", MOUNT, disk, "true"], check=False).returncode:
        pytest.skip("this machine lets nobody mount a file system of their own")
    address = free_addresses().store
    with migrated("sqlite", tmp_path) as url:
        environment = {
            "ADAPTER_STORE_ADDRESS": address,
            "ADAPTER_STORE_DATABASE_URL": url,
            "ADAPTER_STORE_BLOB_URL": f"file://{tmp_path / 'blobs'}",
            "ADAPTER_STORE_UPLOADS_FOLDER": str(disk),
            "ADAPTER_STORE_SERVICE_TOKEN": TOKEN,
        }
        command = [sys.executable, "-m", "services.adapter_store"]
        process = subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", MOUNT, disk, *command], env=os.environ | environment
        )
        try:
            with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
                _await(channel)
                _register(channel)
                yield Store(channel, Path(f"/proc/{process.pid}/root{disk}"))
        finally:
            process.terminate()
            process.wait()


def _await(channel: grpc.Channel) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)
    deadline = time.monotonic() + 30
    while True:
        try:
            health.Check(health_pb2.HealthCheckRequest())
            return
        except grpc.RpcError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def _register(channel: grpc.Channel) -> None:
    modules = [
        adapter_pb2.Module(
            path=m.path, site=m.site, in_features=m.in_features, out_features=m.out_features
        )
        for m in smollm_modules()
    ]
    model = adapter_pb2.BaseModel(
        name="smollm2-135m-instruct",
        also_known_as=["HuggingFaceTB/SmolLM2-135M-Instruct"],
        fingerprint=hashlib.sha256(b"model").hexdigest(),
        modules=modules,
    )
    request = pb.RegisterBaseModelRequest(base_model=model)
    rpc.AdapterStoreServiceStub(channel).RegisterBaseModel(request, metadata=bearer(TOKEN))


def test_an_upload_onto_a_full_disk_is_refused_and_can_be_resumed(store: Store) -> None:
    filler = store.disk / "filler"
    filler.write_bytes(b"x" * 1_700_000)
    with pytest.raises(grpc.RpcError) as caught:
        store.upload()
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "disk is full" in error.details()
    status = rpc_status.from_call(error)
    assert status is not None
    quota = error_details_pb2.QuotaFailure()
    assert any(detail.Unpack(quota) for detail in status.details)
    filler.unlink()
    version = store.upload()
    assert version.number == 1
    assert [entry.name for entry in store.disk.iterdir()] == []
