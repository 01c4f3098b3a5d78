"""Blobs in a folder and in a real S3 endpoint."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from services.adapter_store.blobs import Blobs, open_blobs
from services.core.errors import NotFound
from services.core.types import Digest


@pytest.fixture(params=["folder", "s3"])
def blobs(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Blobs]:
    if request.param == "folder":
        yield open_blobs(f"file://{tmp_path / 'new' / 'blobs'}")
        return
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="adapters")
    yield open_blobs("s3://adapters/production")
    server.stop()


def named(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


async def read(blobs: Blobs, digest: Digest) -> list[bytes]:
    return [piece async for piece in blobs.read(digest)]


async def test_what_was_put_is_read_in_pieces(blobs: Blobs) -> None:
    data = bytes(range(256)) * 12_000
    await blobs.put(named(data), data)
    await blobs.put(named(data), data)
    pieces = await read(blobs, named(data))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 1024 * 1024


async def test_content_must_be_its_digests(blobs: Blobs) -> None:
    with pytest.raises(ValueError, match="digest"):
        await blobs.put(named(b"a"), b"b")
    with pytest.raises(NotFound):
        await read(blobs, named(b"a"))
