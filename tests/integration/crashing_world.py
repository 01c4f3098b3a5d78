"""A store that dies and comes back, and what whoever used it must find again."""

import hashlib
import itertools
import json
import multiprocessing
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from safetensors.torch import save

from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2_grpc as lifecycle_rpc
from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as store_pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as store_rpc
from services.cli.suite import free_addresses
from services.runtime.client import CHANNEL_OPTIONS, bearer
from services.runtime.migrate import migrate
from tests.directly import put
from tests.integration.crashing_store import serve
from tests.peft_folders import peft_config, peft_tensors
from tests.unit.adapter_store.test_validation import SHAPES
from tests.uploading import as_asked, header

WHO = bearer("service")
NAME = {"tenant": "acme", "adapter": "sql"}
CONFIG = json.dumps(peft_config(base_model_name_or_path="tiny"))

multiprocessing.set_forkserver_preload(["tests.integration.crashing_store"])
CONTEXT = multiprocessing.get_context("forkserver")


def content(seed: int) -> bytes:
    return save(peft_tensors(SHAPES, names=["q_proj", "v_proj"], rank=4, seed=seed))


@dataclass
class Acknowledged:
    """What the store said yes to, and what it may have done before it could say so."""

    versions: dict[int, str] = field(default_factory=dict)  # number to digest
    deleted: set[int] = field(default_factory=set)
    production: int | None = None
    generation: int = 0
    in_doubt: tuple[str, int] | None = None  # a promotion or a deletion of a version


class World:
    """A store that dies and comes back, and what it must remember."""

    def __init__(self, folder: Path) -> None:
        database = f"sqlite+aiosqlite:///{folder / 'store.db'}"
        migrate(database)
        self.folder = folder
        at = free_addresses()
        self.address = at.store
        self.environment = {
            "ADAPTER_STORE_ADDRESS": self.address,
            "ADAPTER_STORE_DATABASE_URL": database,
            "ADAPTER_STORE_BLOB_URL": f"file://{folder / 'blobs'}",
            "ADAPTER_STORE_UPLOADS_FOLDER": str(folder / "uploads"),
            "ADAPTER_STORE_UPLOAD_ADDRESS": at.uploads,
            "ADAPTER_STORE_UPLOAD_URL": f"http://{at.uploads}",
            "ADAPTER_STORE_SERVICE_TOKEN": "service",
            "ADAPTER_STORE_LOG_LEVEL": "error",
            "ADAPTER_STORE_KEEPING__UNDELETE": "PT0S",
            "ADAPTER_STORE_KEEPING__GRACE": "PT0S",
            "ADAPTER_STORE_KEEPING__UPLOADS": "PT0S",
        }
        self.known = Acknowledged()
        self.process: Any = None
        self.seeds = itertools.count()

    def start(self, point: str | None = None, when: str = "before", nth: int = 1) -> None:
        self.process = CONTEXT.Process(target=serve, args=(self.environment, point, when, nth))
        self.process.start()
        channel = grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        ready = grpc.channel_ready_future(channel)
        while self.process.is_alive() and not ready.done():
            time.sleep(0.02)
        ready.cancel()
        self.store = store_rpc.AdapterStoreServiceStub(channel)
        self.lifecycle = lifecycle_rpc.AdapterLifecycleServiceStub(channel)
        self.channel = channel

    def stop(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.join()

    def died(self) -> bool:
        """Whether it did what it was armed to do."""
        self.process.join(timeout=5)
        return self.process.exitcode == -9

    def upload(self, data: bytes, *, directly: bool = False, in_parts: bool = False) -> None:
        """`in_parts`: as the store keeps it."""
        sha256 = hashlib.sha256(data).hexdigest()
        is_tagged = directly or in_parts
        opened = self.store.StartUpload(
            store_pb.StartUploadRequest(
                tenant="acme",
                adapter="sql",
                config_json=CONFIG,
                size_bytes=len(data),
                sha256="" if is_tagged else sha256,
                content_tag=sha256 if is_tagged else "",
                header=header(data) if in_parts else b"",
            ),
            metadata=WHO,
        ).upload
        if opened.parts:
            data = as_asked(data, opened.parts)
            sha256 = hashlib.sha256(data).hexdigest()
        if opened.committed_bytes < len(data):
            (self._put if directly else self._write)(opened, data)
        request = store_pb.FinishUploadRequest(upload_id=opened.id, sha256=sha256)
        version = self.store.FinishUpload(request, metadata=WHO).version
        assert self.known.versions.setdefault(version.number, version.digest) == version.digest

    def _write(self, opened: store_pb.Upload, data: bytes) -> None:
        step = 1024
        self.store.WriteChunks(
            (
                store_pb.WriteChunksRequest(
                    upload_id=opened.id, offset=at, data=part, crc32=zlib.crc32(part)
                )
                for at in range(opened.committed_bytes, len(data), step)
                for part in [data[at : at + step]]
            ),
            metadata=WHO,
        )

    def _put(self, opened: store_pb.Upload, data: bytes) -> None:
        request = store_pb.StageUploadRequest(upload_id=opened.id)
        [piece] = self.store.StageUpload(request, metadata=WHO).pieces
        assert put(piece.url, data[piece.offset :]) == 204

    def promote(self, number: int) -> None:
        self.known.in_doubt = ("promote", number)
        request = pb.PromoteRequest(tenant="acme", adapter="sql", version=str(number))
        alias = self.lifecycle.Promote(request, metadata=WHO).alias
        self.known.production, self.known.generation = number, alias.generation
        self.known.in_doubt = None

    def delete(self, number: int) -> None:
        self.known.in_doubt = ("delete", number)
        try:
            self.lifecycle.DeleteVersion(
                pb.DeleteVersionRequest(**NAME, number=number), metadata=WHO
            )
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:  # collected, if it was deleted
                raise
        self.known.deleted.add(number)
        self.known.in_doubt = None

    def collect(self) -> None:
        self.lifecycle.CollectGarbage(pb.CollectGarbageRequest(), metadata=WHO)

    def check(self) -> None:
        """Everything acknowledged is there and whole; everything else is not served."""
        known, doubt = self.known, self.known.in_doubt
        for number, digest in known.versions.items():
            reference = store_pb.ResolveAdapterRequest(tenant="acme", reference=f"sql@{number}")
            try:
                version = self.store.ResolveAdapter(reference, metadata=WHO).version
            except grpc.RpcError as error:
                gone = number in known.deleted or doubt == ("delete", number)
                if gone and error.code() is grpc.StatusCode.NOT_FOUND:
                    continue
                raise
            assert number not in known.deleted
            assert version.digest == digest
            pieces = self.store.Download(store_pb.DownloadRequest(digest=digest), metadata=WHO)
            read = hashlib.sha256(b"".join(piece.data for piece in pieces))
            assert read.hexdigest() == digest
        request = pb.ListAliasesRequest(**NAME)
        aliases = self.lifecycle.ListAliases(request, metadata=WHO).aliases
        now = (aliases[0].number, aliases[0].generation) if aliases else (None, 0)
        allowed = {(known.production, known.generation)}
        if doubt is not None and doubt[0] == "promote":
            allowed.add((doubt[1], known.generation + 1))
        assert now in allowed
        known.production, known.generation = now
        if known.generation:
            asked = pb.ListAliasHistoryRequest(**NAME, page_size=1000)
            moves = self.lifecycle.ListAliasHistory(asked, metadata=WHO).moves
            assert [m.generation for m in moves] == list(range(known.generation, 0, -1))
        told = self.told()
        moved = [c.generation for c in told if c.kind == pb.CHANGE_KIND_ALIAS_MOVED]
        assert moved == list(range(1, known.generation + 1))
        added = [c.number for c in told if c.kind == pb.CHANGE_KIND_VERSION_ADDED]
        assert added == list(range(1, len(added) + 1))
        assert set(known.versions) <= set(added)

    def told(self) -> list[pb.Change]:
        """Every change there was."""
        call = self.lifecycle.Watch(pb.WatchRequest(after=0), metadata=WHO)
        found: list[pb.Change] = []
        while (response := next(call)).HasField("change"):
            found.append(response.change)
        call.cancel()
        return found

    def live(self) -> set[int]:
        return set(self.known.versions) - self.known.deleted

    def files(self) -> list[str]:
        found = (self.folder / "blobs").rglob("blobs/sha256/*/*")
        return sorted(path.name.partition("-")[0] for path in found)
