"""Adapters fetched by a process beside the worker, and what happens when it is slow or gone."""

import asyncio
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
import torch
from safetensors.torch import load, save

from bench.workload import Folder
from services.core import errors
from services.core.errors import CorruptData, FailedPrecondition, FieldViolation, ServingError
from services.core.types import Digest, Fingerprint
from services.gpu_worker.model.adapters import AdapterReader, AdapterWeights
from services.gpu_worker.model.fetching import Fetcher
from services.gpu_worker.model.loading import load_model
from tests.engines import digest_of
from tests.references import adapt, adapter_configs, canonical_of
from tests.tiny_models import make_reference, save_reference


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> AdapterReader:
    """In a thread: what the process must agree with."""
    folder = save_reference(make_reference("llama"), tmp_path_factory.mktemp("model"))
    return AdapterReader(load_model(folder), page_tokens=16)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
async def fetcher(folder: Folder, reader: AdapterReader) -> AsyncIterator[Fetcher]:
    fetcher = Fetcher(folder, reader, patience_seconds=60)
    await fetcher.start()
    yield fetcher
    await fetcher.close()


def stored(
    folder: Folder, reader: AdapterReader, config: str, fingerprint: Fingerprint | None = None
) -> Digest:
    adapted = adapt(make_reference("llama"), adapter_configs()[config], seed=1)
    data = canonical_of(adapted, fingerprint or reader.unpacker.fingerprint)
    (folder.path / digest_of(data)).write_bytes(data)
    return digest_of(data)


def as_read(folder: Folder, reader: AdapterReader, digest: Digest, found: AdapterWeights) -> bool:
    expected = reader.read(folder.download(digest), digest).packing
    packing = found.packing
    return torch.equal(packing.image, expected.image) and packing.layout == expected.layout


def process_of(fetcher: Fetcher) -> int:
    """The one that gives way."""
    assert fetcher.yielding.process_id is not None
    return fetcher.yielding.process_id


@pytest.fixture
def digests(folder: Folder, reader: AdapterReader) -> list[Digest]:
    return [stored(folder, reader, config) for config in ("all-8", "qv-4", "all-64")]


async def test_the_process_reads_what_a_thread_would(
    fetcher: Fetcher, reader: AdapterReader, folder: Folder, digests: list[Digest]
) -> None:
    with structlog.testing.capture_logs() as logs:
        found = await asyncio.gather(*(fetcher.fetch(digest) for digest in digests))
    for digest, weights in zip(digests, found, strict=True):
        assert as_read(folder, reader, digest, weights)
    assert not logs, "a thread did it after all"


async def test_a_file_that_cannot_be_read_fails_alone(
    fetcher: Fetcher, reader: AdapterReader, folder: Folder, digests: list[Digest]
) -> None:
    whole = (folder.path / digests[0]).read_bytes()
    damaged = whole[:-1] + bytes([whole[-1] ^ 1])
    with pytest.raises(CorruptData):
        reader.read([damaged], digests[0])
    (folder.path / digests[0]).write_bytes(damaged)
    with pytest.raises(CorruptData):
        await fetcher.fetch(digests[0])
    for nonsense in [b"", b"{}", b"\xff" * 100]:
        (folder.path / digest_of(nonsense)).write_bytes(nonsense)
        with pytest.raises(CorruptData):
            await fetcher.fetch(digest_of(nonsense))
    with pytest.raises(FailedPrecondition):
        await fetcher.fetch(stored(folder, reader, "all-8", Fingerprint("f" * 64)))
    with structlog.testing.capture_logs() as logs:
        await fetcher.fetch(digests[1])
    assert not logs


async def test_what_was_stored_in_the_first_format_is_read(
    fetcher: Fetcher, reader: AdapterReader, folder: Folder
) -> None:
    digest = stored(folder, reader, "pattern-8")
    data = (folder.path / digest).read_bytes()
    tensors = load(data)
    facts = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["lorikeet"]
    before = {n: t.T.contiguous() if n.endswith(".B") else t for n, t in tensors.items()}
    older = save(before, {"lorikeet": facts.replace('"format": 2', '"format": 1')})
    (folder.path / digest_of(older)).write_bytes(older)
    found, expected = await fetcher.fetch(digest_of(older)), await fetcher.fetch(digest)
    assert torch.equal(found.packing.image, expected.packing.image)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
async def test_halves_become_the_same_numbers(
    fetcher: Fetcher, reader: AdapterReader, folder: Folder, kind: torch.dtype
) -> None:
    data = (folder.path / stored(folder, reader, "all-8")).read_bytes()
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    halves = {name: tensor.to(kind) for name, tensor in load(data).items()}
    images = []
    for tensors in (halves, {name: tensor.float() for name, tensor in halves.items()}):
        written = save(tensors, metadata)
        (folder.path / digest_of(written)).write_bytes(written)
        images.append((await fetcher.fetch(digest_of(written))).packing.image)
    assert torch.equal(*images)


async def test_a_process_that_was_killed_costs_nobody_an_adapter(
    fetcher: Fetcher, reader: AdapterReader, folder: Folder, digests: list[Digest]
) -> None:
    killed = process_of(fetcher)
    os.kill(killed, signal.SIGSTOP)
    fetches = [asyncio.create_task(fetcher.fetch(digest)) for digest in digests]
    await asyncio.sleep(0.1)
    os.kill(killed, signal.SIGKILL)
    for digest, weights in zip(digests, await asyncio.gather(*fetches), strict=True):
        assert as_read(folder, reader, digest, weights)
    await fetcher.fetch(digests[0])
    assert process_of(fetcher) != killed


async def test_a_process_that_gets_no_processor_is_not_waited_for(
    folder: Folder, reader: AdapterReader, digests: list[Digest]
) -> None:
    processors = os.sched_getaffinity(0)
    hog = await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass")
    fetcher = Fetcher(folder, reader, patience_seconds=0.2)
    try:
        await fetcher.start()
        for process in (hog.pid, process_of(fetcher)):
            os.sched_setaffinity(process, {min(processors)})
        with structlog.testing.capture_logs() as logs:
            found = await fetcher.fetch(digests[0])
    finally:
        hog.kill()
        await hog.wait()
    assert as_read(folder, reader, digests[0], found)
    assert [entry["event"] for entry in logs] == ["fetch_starved"]
    while logs:  # its late answer is nobody's, and the next is as good as any
        with structlog.testing.capture_logs() as logs:
            found = await fetcher.fetch(digests[1])
    assert as_read(folder, reader, digests[1], found)
    await fetcher.close()


async def test_a_process_gives_way_to_everything_else(fetcher: Fetcher) -> None:
    for thread in os.listdir(f"/proc/{process_of(fetcher)}/task"):
        assert os.sched_getscheduler(int(thread)) == os.SCHED_IDLE


async def test_who_comes_while_it_is_busy_is_served_by_the_other(
    fetcher: Fetcher, reader: AdapterReader, folder: Folder, digests: list[Digest]
) -> None:
    os.kill(process_of(fetcher), signal.SIGSTOP)
    first = asyncio.create_task(fetcher.fetch(digests[0]))
    await asyncio.sleep(0)
    others = await asyncio.gather(*(fetcher.fetch(digest) for digest in digests[1:]))
    for digest, weights in zip(digests[1:], others, strict=True):
        assert as_read(folder, reader, digest, weights)
    assert not first.done()
    os.kill(process_of(fetcher), signal.SIGCONT)
    assert as_read(folder, reader, digests[0], await first)


async def test_two_broken_processes_leave_a_thread(
    fetcher: Fetcher, reader: AdapterReader, folder: Folder, digests: list[Digest]
) -> None:
    for service in (fetcher.yielding, fetcher.prompt):
        assert service.process_id is not None
        os.kill(service.process_id, signal.SIGKILL)
    assert as_read(folder, reader, digests[0], await fetcher.fetch(digests[0]))


async def test_where_no_process_can_start_a_thread_fetches(
    folder: Folder,
    reader: AdapterReader,
    digests: list[Digest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    fetcher = Fetcher(folder, reader)
    with structlog.testing.capture_logs() as logs:
        assert as_read(folder, reader, digests[0], await fetcher.fetch(digests[0]))
    assert [entry["event"] for entry in logs] == ["fetch_broke", "fetch_broke"]
    await fetcher.close()


async def test_the_process_leaves_with_its_worker(fetcher: Fetcher) -> None:
    process = process_of(fetcher)
    await fetcher.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_the_process_ends_when_nobody_is_at_the_other_end(
    folder: Folder, reader: AdapterReader
) -> None:
    line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "services.gpu_worker.model.fetch_process"]
        process = subprocess.Popen([*command, str(theirs.fileno())], pass_fds=[theirs.fileno()])
    line.send(pickle.dumps((folder, reader.unpacker)))
    line.close()
    assert process.wait(60) == 0


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidRequest([FieldViolation("a", "b")]),
        errors.OffsetMismatch(3, 4),
        errors.Unavailable("busy", 2.5),
        errors.NotFound("gone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_pass_between_processes(error: ServingError) -> None:
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error)
    assert (str(found), vars(found)) == (str(error), vars(error))
