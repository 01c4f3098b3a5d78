"""An adapter store's repositories over a database of any kind, and versions to put into them."""

import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

from services.adapter_store.changes import Bell
from services.adapter_store.lifecycle import Lifecycle
from services.adapter_store.records import (
    AdapterVersion,
    Ask,
    NewVersion,
    Provenance,
    Upload,
    VersionDetails,
)
from services.adapter_store.repositories.aliases import SqlAliasRepository
from services.adapter_store.repositories.base_models import SqlBaseModelRepository
from services.adapter_store.repositories.blobs import SqlBlobRepository
from services.adapter_store.repositories.changes import SqlChangeRepository, ring_after_commits
from services.adapter_store.repositories.shares import SqlShareRepository
from services.adapter_store.repositories.uploads import SqlUploadRepository
from services.adapter_store.repositories.versions import SqlVersionRepository
from services.adapter_store.resolution import Resolver
from services.adapter_store.sharing import Sharing
from services.core.base_model import Module
from services.core.types import AdapterName, Digest, TenantId
from services.runtime.db import open_sessions
from tests.cards import CARD

BASE = replace(
    CARD,
    also_known_as=("org/Tiny",),
    end_tokens=(1, 2),
    chat_template="{{ messages }}",
    special_tokens={"eos_token": "</s>"},
    modules=(Module("model.layers.0.self_attn.q_proj", "0.q", 48, 48),),
    tokenizer_json=b'{"a": "\xc3\xa9"}',
)
_COUNT = itertools.count(1)


class Store:
    def __init__(self, url: str) -> None:
        self.sessions = open_sessions(url)
        self.base_models = SqlBaseModelRepository(self.sessions)
        self.uploads = SqlUploadRepository(self.sessions)
        self.versions = SqlVersionRepository(self.sessions)
        self.aliases = SqlAliasRepository(self.sessions)
        self.shares = SqlShareRepository(self.sessions)
        self.blob_rows = SqlBlobRepository(self.sessions)
        self.changes = SqlChangeRepository(self.sessions)
        self.bell = Bell()
        ring_after_commits(self.sessions, self.bell.ring)
        self.resolver = Resolver(self.versions, self.aliases, self.shares)
        self.lifecycle = Lifecycle(self.aliases, self.resolver)
        self.sharing = Sharing(self.shares)

    async def commit(
        self, tenant: TenantId, content: int, adapter: str = "sql", **facts: Any
    ) -> AdapterVersion:
        opened = await self.uploads.open_upload(upload(adapter, tenant), most_uploads=99)
        made = version(adapter, content, tenant, **facts)
        await self.blob_rows.lease(made.digest, f"key-{content}", timedelta(minutes=1))
        return await self.uploads.commit(opened.id, made)

    async def meant(self, tenant: TenantId, reference: str, request: str = "") -> int:
        found = await self.resolver.resolve(tenant, reference, request=request)
        return found.version.number


def fresh_tenant() -> TenantId:
    return TenantId(f"tenant-{next(_COUNT)}")


def upload(adapter: str, tenant: TenantId, content: int | None = None) -> Upload:
    """Of content that no other has, unless it is given."""
    number = next(_COUNT)
    return Upload(
        id=f"{number:032x}",
        tenant=tenant,
        adapter=AdapterName(adapter),
        config_json="{}",
        size_bytes=10,
        sha256=f"{number if content is None else content:064x}",
        base_model="tiny",
        provenance=Provenance(labels={"team": "search"}, parents=("a" * 64,)),
    )


def version(adapter: str, content: int, tenant: TenantId, **facts: Any) -> NewVersion:
    return NewVersion(
        tenant=tenant,
        adapter=AdapterName(adapter),
        digest=Digest(f"{content:064x}"),
        base_model="tiny",
        base_fingerprint=BASE.fingerprint,
        size_bytes=5_000_000_000,
        max_rank=8,
        module_count=1,
        parameter_count=6_000_000_000,
        provenance=Provenance(created_by="acme", **facts),
        details=VersionDetails('{"r": 8}', {"0.q": 8}),
    )


def ask(**options: Any) -> Ask:
    return Ask(by="acme", **options)
