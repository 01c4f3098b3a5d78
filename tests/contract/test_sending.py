"""The command line's sending: past gRPC where it can, by gRPC where it must."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as rpc
from services.adapter_store.doors import StoreDoor
from services.adapter_store.resolution import Resolver
from services.adapter_store.servicer import AdapterStoreServicer
from services.adapter_store.signing import Signer
from services.adapter_store.staging import Staging
from services.cli.content import Content
from services.cli.sending import Sender
from services.cli.suite import free_addresses
from services.cli.upload import CONFIG, WEIGHTS, content_tag, upload_folder
from services.core.errors import InvalidRequest
from services.runtime.access import ADAPTER_STORE, scopes_of
from services.runtime.auth import Gate, ServiceToken
from services.runtime.client import bearer
from services.runtime.server import Server
from tests.directly import KINDS, SECRET, Direct, direct
from tests.peft_folders import peft_config
from tests.uploading import ACME, DATA

WHO = bearer("token", tenant=ACME)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "sql"
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps(peft_config(base_model_name_or_path="tiny")))
    (folder / WEIGHTS).write_bytes(DATA)
    return folder


@pytest.fixture(params=KINDS)
async def here(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Direct]:
    async with direct(request.param, tmp_path, monkeypatch) as here:
        yield here


class Store:
    """On the wire."""

    def __init__(self, here: Direct, folder: Path, *, without: str = "") -> None:
        self._folder = folder
        self.size_bytes = 0  # of what was uploaded
        self.address = free_addresses().store
        scopes = scopes_of(ADAPTER_STORE)
        scopes.pop(f"/{ADAPTER_STORE}/{without}", None)
        gate = Gate(ServiceToken("token"), scopes)
        self.server = Server(address=self.address, gate=gate, services=[ADAPTER_STORE])
        nobody: Any = None
        self.servicer = AdapterStoreServicer(
            here.uploads, here.catalog, Resolver(nobody, nobody, nobody)
        )
        rpc.add_AdapterStoreServiceServicer_to_server(self.servicer, self.server.grpc)

    async def upload(self) -> int:
        """By the command line; the number of the version."""

        def send() -> int:
            with grpc.insecure_channel(self.address) as channel:
                version = upload_folder(channel, WHO, self._folder, adapter="sql")
                self.size_bytes = version.size_bytes
                return version.number

        return await asyncio.to_thread(send)


@pytest.fixture
async def store(here: Direct, folder: Path) -> AsyncIterator[Store]:
    store = Store(here, folder)
    await store.server.start()
    yield store
    await store.server.drain(1)


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each chunk that came by gRPC."""
    sizes, append = [], Staging.append

    def counted(staging: Staging, upload: Any, chunk: Any) -> int:
        sizes.append(len(chunk.data))
        return append(staging, upload, chunk)

    monkeypatch.setattr(Staging, "append", counted)
    return sizes


async def test_bytes_go_past_grpc(store: Store, chunks: list[int]) -> None:
    assert await store.upload() == 1
    assert chunks == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid:80", "no url"])
async def test_who_cannot_reach_the_door_sends_by_grpc(
    here: Direct, store: Store, chunks: list[int], url: str
) -> None:
    here.uploads._door = StoreDoor(url, Signer(SECRET))
    assert await store.upload() == 1
    assert sum(chunks) == store.size_bytes


async def test_who_is_refused_at_the_door_sends_by_grpc(
    store: Store, chunks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = Sender._lacking

    def spoilt(sender: Sender, upload: pb.Upload) -> list[pb.StagePiece]:
        pieces = lacking(sender, upload)
        for piece in pieces:
            path = piece.url.partition("//")[2].partition("/")[2]
            piece.url = piece.url.replace(path, "another/path")
        return pieces

    monkeypatch.setattr(Sender, "_lacking", spoilt)
    assert await store.upload() == 1
    assert sum(chunks) == store.size_bytes


async def test_a_cut_line_is_taken_up(
    store: Store, chunks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets, put = [], Sender._put

    def cut(sender: Sender, content: Content, piece: pb.StagePiece, total: int) -> None:
        offsets.append(piece.offset)
        if len(offsets) == 2:
            raise ConnectionResetError("the line was cut")
        put(sender, content, piece, total)
        if len(offsets) == 1:
            raise ConnectionResetError("the line was cut")

    monkeypatch.setattr(Sender, "_put", cut)
    assert await store.upload() == 1
    assert chunks == []


async def test_a_store_of_the_release_before_is_served(
    here: Direct, folder: Path, chunks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = type(here.uploads).start

    async def before(uploads: Any, **asked: Any) -> Any:
        if not asked["sha256"]:
            raise InvalidRequest.of("sha256", "must be 64 hexadecimal digits")
        return await start(uploads, **asked | {"content_tag": ""})

    monkeypatch.setattr(type(here.uploads), "start", before)
    store = Store(here, folder, without="StageUpload")
    await store.server.start()
    try:
        assert await store.upload() == 1
    finally:
        await store.server.drain(1)
    assert sum(chunks) == len(DATA)


def test_a_tag_tells_contents_apart(folder: Path) -> None:
    weights, tags = folder / WEIGHTS, set()
    for data in (DATA, DATA + b"x", DATA[:-1] + b"x", b"x" + DATA[1:], b"", b"x" * 5_000_000):
        weights.write_bytes(data)
        tags.add(content_tag(weights))
    assert len(tags) == 6
    assert all(len(tag) == hashlib.sha256().digest_size * 2 for tag in tags)
