"""Data sets that tenants sent: files in a folder, by what is in them."""

import asyncio
import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Container
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from services.core.errors import InvalidRequest, NotFound, ResourceExhausted
from services.core.types import TenantId
from services.trainer.examples import bad, read_examples
from services.trainer.jobs import DataKind, DataSet, is_sha256

CONTENT, FACTS = "content", "facts.json"
INCOMING = ".incoming"
MOST_LABELS = 1000

_TENANT = re.compile(r"[a-z][a-z0-9-]{0,62}")
_NAME = re.compile(r"[^/\\\x00-\x1f]{1,255}")


class DataSets:
    """Of several trainers all have the same folder. What is there is complete."""

    def __init__(self, folder: Path, *, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    async def write(self, tenant: TenantId, name: str, pieces: AsyncIterator[bytes]) -> DataSet:
        """Raises InvalidRequest that names file and line, or ResourceExhausted."""
        _check(tenant, name)
        incoming = self._folder / INCOMING / uuid4().hex
        try:
            incoming.mkdir(parents=True)
            digest, size = await self._receive(incoming / CONTENT, name, pieces)
            found = await asyncio.to_thread(_understood, incoming / CONTENT, name, digest, size)
            await asyncio.to_thread(self._keep, incoming, tenant, found)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise ResourceExhausted("the trainer's disk is full") from error
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        return found

    async def get(self, tenant: TenantId, sha256: str) -> DataSet:
        """Raises NotFound. It is kept as long as if it were new."""
        file = self._home(tenant, sha256) / FACTS
        try:
            os.utime(file)
            facts: dict[str, Any] = json.loads(file.read_text())
        except FileNotFoundError as error:
            raise NotFound(f"there is no data set {sha256!r}; send it first") from error
        return DataSet(**facts | {"kind": DataKind(facts["kind"])})

    def remove_old(self, seconds: float, keep: Container[tuple[str, str]]) -> None:
        """What nobody has asked for in so long, but for these of tenants: (tenant, SHA-256)."""
        oldest = time.time() - seconds
        for incoming in (self._folder / INCOMING).glob("*"):
            if incoming.stat().st_mtime < oldest:
                shutil.rmtree(incoming, ignore_errors=True)
        for facts in self._folder.glob(f"*/*/{FACTS}"):
            key = (facts.parent.parent.name, facts.parent.name)
            if facts.stat().st_mtime < oldest and key not in keep:
                shutil.rmtree(facts.parent, ignore_errors=True)

    def path(self, tenant: TenantId, data: DataSet) -> Path:
        return self._home(tenant, data.sha256) / CONTENT

    async def _receive(
        self, file: Path, name: str, pieces: AsyncIterator[bytes]
    ) -> tuple[str, int]:
        whole, size = hashlib.sha256(), 0
        with file.open("wb") as out:  # pieces are small
            async for piece in pieces:
                size += len(piece)
                if size > self._most_bytes:
                    raise bad(name, 0, f"is larger than {self._most_bytes} bytes")
                whole.update(piece)
                await asyncio.to_thread(out.write, piece)
            out.flush()
            await asyncio.to_thread(os.fsync, out.fileno())
        return whole.hexdigest(), size

    def _keep(self, incoming: Path, tenant: TenantId, data: DataSet) -> None:
        home = self._home(tenant, data.sha256)
        home.mkdir(parents=True, exist_ok=True)
        (incoming / FACTS).write_text(json.dumps(asdict(data) | {"kind": data.kind.value}))
        for name in (CONTENT, FACTS):  # facts last: with them it is there
            (incoming / name).replace(home / name)

    def _home(self, tenant: TenantId, sha256: str) -> Path:
        if not (_TENANT.fullmatch(tenant) and is_sha256(sha256)):
            raise NotFound(f"there is no data set {sha256!r}; send it first")
        return self._folder / tenant / sha256


def _check(tenant: str, name: str) -> None:
    if not _TENANT.fullmatch(tenant):
        raise InvalidRequest.of("tenant", "is not the name of a tenant")
    if not _NAME.fullmatch(name):
        raise InvalidRequest.of("name", "must be a file's name without folders")


def _understood(file: Path, name: str, sha256: str, size: int) -> DataSet:
    if not size:
        raise bad(name, 0, "is empty")
    kind, examples = read_examples(file, name)
    rows, last, labels = 0, 0, set()
    for example in examples:
        rows, last = rows + (example.line != last), example.line
        if kind is DataKind.CLASSIFICATION:
            labels.add(example.target)
        if len(labels) > MOST_LABELS:
            raise bad(name, example.line, f"is the label number {len(labels)}: too many")
    if kind is DataKind.CLASSIFICATION and len(labels) < 2:
        raise bad(name, 0, f"has no label but {labels.pop()!r}")
    return DataSet(sha256, name, size, rows, kind)
