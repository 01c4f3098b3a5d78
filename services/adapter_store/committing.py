"""The end of an upload: its bytes are checked, kept, and become a version."""

import asyncio
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Protocol

from services.adapter_store.arrangement import arranged, claims_to_be_arranged, sent_adapter
from services.adapter_store.canonical import CanonicalAdapter
from services.adapter_store.incoming import Incoming, Linked
from services.adapter_store.peft import PeftConfig, read_config
from services.adapter_store.records import AdapterVersion, NewVersion, Upload, VersionDetails
from services.adapter_store.staging import Staging
from services.adapter_store.validation import validate
from services.adapter_store.weights import Weights
from services.core.base_model import BaseModel
from services.core.errors import InvalidAdapter
from services.core.types import Digest
from services.runtime.beside import to_their_ends


class VersionRepository(Protocol):
    async def commit(self, upload_id: str, version: NewVersion) -> AdapterVersion: ...


class OneBaseModel(Protocol):
    async def base_model(self, name: str) -> BaseModel | None: ...


class Committing:
    def __init__(
        self,
        repository: VersionRepository,
        *,
        base_models: OneBaseModel,
        weights: Weights,
        staging: Staging,
        max_rank: int,
    ) -> None:
        self._repository = repository
        self._base_models = base_models
        self._weights = weights
        self._staging = staging
        self._max_rank = max_rank

    async def commit(self, upload: Upload, sha256: str) -> AdapterVersion:
        """Raises InvalidAdapter or CorruptData."""
        file = self._staging.whole(upload)
        is_arranged = await asyncio.to_thread(claims_to_be_arranged, file)
        with self._incoming(file if is_arranged else None) as incoming:
            return await self._commit(upload, sha256, incoming, is_arranged=is_arranged)

    def _incoming(
        self, file: Path | None
    ) -> closing[Incoming] | closing[Linked] | nullcontext[None]:
        """Where the canonical bytes are written, if they are not in `file` already."""
        if file is not None:
            linked = self._weights.linked(file)
            return nullcontext() if linked is None else closing(linked)
        incoming = self._weights.incoming()
        return nullcontext() if incoming is None else closing(incoming)

    async def _commit(
        self,
        upload: Upload,
        sha256: str,
        incoming: Incoming | Linked | None,
        *,
        is_arranged: bool,
    ) -> AdapterVersion:
        base = await self._base_models.base_model(upload.base_model)
        assert base is not None  # they are never removed
        config = await asyncio.to_thread(read_config, upload.config_json)
        if is_arranged:
            adapter = await self._arranged(upload, sha256, config, base)
        else:
            written = incoming if isinstance(incoming, Incoming) else None
            adapter = await self._checked(upload, sha256, config, base, written)
        await self._weights.keep(adapter.digest, adapter.pieces(), incoming)
        version = NewVersion(
            tenant=upload.tenant,
            adapter=upload.adapter,
            digest=adapter.digest,
            base_model=base.name,
            base_fingerprint=base.fingerprint,
            size_bytes=adapter.size_bytes,
            max_rank=max(adapter.ranks.values()),
            module_count=len(adapter.ranks),
            parameter_count=adapter.parameter_count,
            provenance=upload.provenance,
            details=VersionDetails(upload.config_json, adapter.ranks),
        )
        return await self._repository.commit(upload.id, version)

    async def _arranged(
        self, upload: Upload, sha256: str, config: PeftConfig, base: BaseModel
    ) -> CanonicalAdapter:
        """What came in canonical form already; mostly it was looked at as it came."""
        file = self._staging.whole(upload)

        def look() -> CanonicalAdapter:
            refused = arrangement = None
            try:
                arrangement = arranged(file, config, base, max_rank=self._max_rank)
            except InvalidAdapter as error:
                refused = error
            arrival = self._staging.verify(upload, sha256, arrangement)
            if refused is not None or arrangement is None:
                raise refused or AssertionError
            if wrong := arrival.not_finite():
                raise InvalidAdapter(wrong)
            return sent_adapter(arrangement, Digest(sha256), file)

        [adapter] = await to_their_ends(look)
        assert isinstance(adapter, CanonicalAdapter)
        return adapter

    async def _checked(
        self,
        upload: Upload,
        sha256: str,
        config: PeftConfig,
        base: BaseModel,
        incoming: Incoming | None,
    ) -> CanonicalAdapter:
        """Its bytes against what was declared, beside what they say; the former is told first."""
        file = self._staging.whole(upload)
        write = (lambda piece: None) if incoming is None else incoming.write
        _, adapter = await to_their_ends(
            lambda: self._staging.verify(upload, sha256),
            lambda: validate(file, config, base, max_rank=self._max_rank, write=write),
        )
        assert isinstance(adapter, CanonicalAdapter)
        return adapter
