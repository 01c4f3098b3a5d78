"""What the store's own door lets in, over real sockets."""

import asyncio
import resource
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from services.adapter_store.receiver import MOST_CONNECTIONS, Receiver, receiving, tls_of
from services.adapter_store.records import Upload
from services.adapter_store.signing import Grant, Signer
from services.cli.suite import free_addresses
from services.core.errors import FailedPrecondition
from tests.directly import SECRET, Direct, arrived, direct, put, put_all
from tests.uploading import ACME, DATA, begin, write


@pytest.fixture
async def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Direct]:
    async with direct("folder", tmp_path, monkeypatch) as here:
        yield here


async def url_of(here: Direct, upload: Upload) -> str:
    [piece] = (await here.uploads.stage(upload.id, ACME))[0]
    return piece.url


async def test_a_url_is_of_one_upload(here: Direct) -> None:
    mine, other = await begin(here.uploads), await begin(here.uploads, adapter="other")
    url = (await url_of(here, mine)).replace(mine.id, other.id)
    assert await asyncio.to_thread(put, url, DATA) == 403
    assert here.staging.held() == []


async def test_an_expired_url_is_refused(here: Direct) -> None:
    upload = await begin(here.uploads)
    before = datetime.now(UTC) - timedelta(seconds=1)
    [piece] = await here.door.pieces(upload, before)
    assert await asyncio.to_thread(put, piece.url, DATA) == 403
    assert here.staging.held() == []


async def test_a_url_is_refused_once_its_upload_has_ended(here: Direct) -> None:
    upload = await begin(here.uploads)
    url = await url_of(here, upload)
    await write(here.uploads, upload, DATA)
    assert await asyncio.to_thread(put, url, DATA) == 409  # they are there
    await here.uploads.finish(upload.id, ACME)
    assert await asyncio.to_thread(put, url, DATA) == 409
    dropped = await begin(here.uploads, adapter="dropped")
    url = await url_of(here, dropped)
    await here.uploads._repository.drop_upload(dropped.id)
    assert await asyncio.to_thread(put, url, DATA) == 404
    assert here.staging.held() == []


@pytest.mark.parametrize("body", [DATA + b"x", DATA[:-1]])
async def test_a_url_is_for_so_many_bytes(here: Direct, body: bytes) -> None:
    upload = await begin(here.uploads)
    assert await asyncio.to_thread(put, await url_of(here, upload), body) == 400
    assert here.staging.held() == []


async def test_more_than_was_declared_is_refused(here: Direct) -> None:
    upload, expires = await begin(here.uploads), int(datetime.now(UTC).timestamp()) + 60
    base = (await url_of(here, upload)).partition("/uploads/")[0]
    path = Signer(SECRET).path(Grant(upload.id, 0, len(DATA) + 1, expires))
    assert await asyncio.to_thread(put, base + path, DATA + b"x") == 400
    assert here.staging.held() == []


async def test_two_writers_do_not_mix(here: Direct) -> None:
    upload = await begin(here.uploads)
    url = await url_of(here, upload)
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as first:
        head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nContent-Length: {len(DATA)}\r\n\r\n"
        first.sendall(head.encode() + DATA[:1000])
        for _ in range(1000):
            if here.staging.writer(upload.id).locked():
                break
            await asyncio.sleep(0.01)
        assert await asyncio.to_thread(put, url, DATA) == 409
        with pytest.raises(FailedPrecondition, match="another call"):
            await write(here.uploads, upload, DATA)
        first.sendall(DATA[1000:])
        assert b" 204 " in await asyncio.to_thread(first.recv, 1000)
    assert (await here.uploads.finish(upload.id, ACME)).number == 1


async def test_a_full_disk_is_told_and_keeps_what_came(here: Direct) -> None:
    upload = await begin(here.uploads)
    url = await url_of(here, upload)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1200, before[1]))
    try:
        assert await asyncio.to_thread(put, url, DATA) == 507
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    again = await begin(here.uploads)
    assert again.id == upload.id
    await asyncio.to_thread(put_all, (await here.uploads.stage(upload.id, ACME))[0], DATA)
    assert (await here.uploads.finish(upload.id, ACME)).number == 1


async def test_nothing_but_puts_is_served_and_only_to_so_many(here: Direct) -> None:
    assert here.receiver is not None
    host, port = here.receiver.server_address[:2]
    address = (str(host), int(port))
    with socket.create_connection(address) as asks:
        asks.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b" 501 " in await asyncio.to_thread(asks.recv, 1000)
    held = []
    for _ in range(MOST_CONNECTIONS):
        held.append(socket.create_connection(address))
    one_more = socket.create_connection(address)
    assert await asyncio.to_thread(one_more.recv, 1) == b""
    for connection in (*held, one_more):
        connection.close()


async def test_its_end_keeps_what_came(here: Direct) -> None:
    upload = await begin(here.uploads)
    address = free_addresses().uploads
    receiver = Receiver(address, here.uploads, staging=here.staging, signer=Signer(SECRET))
    parts = urlsplit(await url_of(here, upload))
    async with receiving(receiver):
        host, _, port = address.partition(":")
        line = socket.create_connection((host, int(port)))
        head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nContent-Length: {len(DATA)}\r\n\r\n"
        line.sendall(head.encode() + DATA[:1000])
        for _ in range(1000):
            if here.staging.writer(upload.id).locked():
                break
            await asyncio.sleep(0.01)
    line.close()
    await arrived(here, upload.id, 1000)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Of 127.0.0.1, and its key."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    )
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out"]
    subprocess.run(["openssl", *made.split(), *names, certificate], check=True, capture_output=True)
    return certificate, key


async def test_it_speaks_tls(here: Direct, certificate: tuple[Path, Path]) -> None:
    upload = await begin(here.uploads)
    parts = urlsplit(await url_of(here, upload))
    host, _, port = free_addresses().uploads.partition(":")
    receiver = Receiver(
        f"{host}:{port}",
        here.uploads,
        staging=here.staging,
        signer=Signer(SECRET),
        tls=tls_of(*certificate),
    )
    trusting = ssl.create_default_context(cafile=str(certificate[0]))

    def send() -> bytes:
        with (
            socket.create_connection((host, int(port))) as line,
            trusting.wrap_socket(line, server_hostname=host) as safe,
        ):
            head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nContent-Length: {len(DATA)}\r\n\r\n"
            safe.sendall(head.encode() + DATA)
            return safe.recv(1000)

    async with receiving(receiver):
        assert b" 204 " in await asyncio.to_thread(send)
    assert (await here.uploads.finish(upload.id, ACME)).number == 1
