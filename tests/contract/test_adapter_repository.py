"""The adapter repository's promises, on SQLite and PostgreSQL alike."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from services.adapter_store.records import NewVersion, Upload
from services.adapter_store.repository import SqlAdapterRepository
from services.core.base_model import BaseModel, Module
from services.core.errors import FailedPrecondition, NotFound, ResourceExhausted
from services.core.types import AdapterName, Digest, Fingerprint, TenantId
from services.runtime.db import close_sessions, open_sessions

ACME, OTHER = TenantId("acme"), TenantId("other")
BASE = BaseModel(
    name="tiny",
    also_known_as=("org/Tiny",),
    fingerprint=Fingerprint("f" * 64),
    architecture="LlamaForCausalLM",
    context_tokens=256,
    vocabulary_tokens=120,
    end_tokens=(1, 2),
    chat_template="{{ messages }}",
    special_tokens={"eos_token": "</s>"},
    modules=(Module("model.layers.0.self_attn.q_proj", "0.q", 48, 48),),
    tokenizer_json=b'{"a": "\xc3\xa9"}',
)


@pytest.fixture
async def repository(url: str) -> AsyncIterator[SqlAdapterRepository]:
    sessions = open_sessions(url)
    repository = SqlAdapterRepository(sessions)
    await repository.register(BASE)
    yield repository
    await close_sessions(sessions)


def upload(number: int, adapter: str, tenant: TenantId = ACME) -> Upload:
    return Upload(
        id=f"{number:032x}",
        tenant=tenant,
        adapter=AdapterName(adapter),
        config_json="{}",
        size_bytes=10,
        sha256=f"{number:064x}",
        base_model="tiny",
    )


def version(adapter: str, content: int, tenant: TenantId = ACME) -> NewVersion:
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
        config_json='{"r": 8}',
    )


async def test_a_base_model_comes_back_as_it_was(repository: SqlAdapterRepository) -> None:
    found = await repository.base_model("tiny")
    assert found is not None
    assert replace(found, created=None) == BASE
    assert [model.name for model in await repository.base_models()] == ["tiny"]
    assert await repository.base_model("large") is None


async def test_a_base_model_keeps_its_weights_but_may_learn_names(
    repository: SqlAdapterRepository,
) -> None:
    renamed = await repository.register(replace(BASE, also_known_as=("org/Tiny", "tiny-1")))
    assert renamed.is_called("TINY-1")
    with pytest.raises(FailedPrecondition, match="other weights"):
        await repository.register(replace(BASE, fingerprint=Fingerprint("0" * 64)))
    await repository.register(BASE)


async def test_versions_count_up_and_the_same_content_is_the_same_version(
    repository: SqlAdapterRepository,
) -> None:
    for number, content in enumerate((1, 2, 2, 1), start=100):
        await repository.open_upload(upload(number, "sql"), most_uploads=9)
        committed = await repository.commit(f"{number:032x}", version("sql", content))
        assert committed.parameter_count == 6_000_000_000
    numbers = [(v.number, v.digest[-1]) for v in await repository.versions(ACME, "sql")]
    assert numbers == [(3, "1"), (2, "2"), (1, "1")]
    newest = await repository.newest(ACME, "sql")
    assert newest is not None
    assert newest.number == 3
    assert (await repository.numbered(ACME, "sql", 2)) is not None
    assert (await repository.numbered(ACME, "sql", 4)) is None
    assert len(await repository.by_digest(ACME, "sql", "0" * 40)) == 3
    assert await repository.by_digest(ACME, "sql", "%") == []
    assert await repository.newest_config(ACME, "sql") == '{"r": 8}'


async def test_tenants_do_not_see_each_other(repository: SqlAdapterRepository) -> None:
    await repository.open_upload(upload(200, "mine", OTHER), most_uploads=9)
    await repository.commit(f"{200:032x}", version("mine", 7, OTHER))
    assert await repository.newest(ACME, "mine") is None
    assert await repository.versions(ACME, "mine") == []
    assert [v.adapter for v in await repository.adapters(OTHER, after="", limit=9)] == ["mine"]
    assert "mine" not in [v.adapter for v in await repository.adapters(ACME, after="", limit=9)]
    assert await repository.count_adapters(OTHER) == 1


async def test_adapters_are_listed_by_name_page_by_page(repository: SqlAdapterRepository) -> None:
    tenant = TenantId("pages")
    for number, name in enumerate(("b", "a", "c", "a"), start=300):
        await repository.open_upload(upload(number, name, tenant), most_uploads=9)
        await repository.commit(f"{number:032x}", version(name, number, tenant))
    first = await repository.adapters(tenant, after="", limit=2)
    rest = await repository.adapters(tenant, after="b", limit=2)
    assert [(v.adapter, v.number) for v in first] == [("a", 2), ("b", 1)]
    assert [v.adapter for v in rest] == ["c"]


async def test_an_upload_is_found_again_and_ends_with_its_version(
    repository: SqlAdapterRepository,
) -> None:
    tenant = TenantId("resume")
    opened = await repository.open_upload(upload(400, "x", tenant), most_uploads=2)
    again = await repository.open_upload(upload(401, "x", tenant), most_uploads=2)
    assert again.id != opened.id  # other content: another upload
    same = await repository.open_upload(
        replace(upload(400, "x", tenant), id=f"{402:032x}"), most_uploads=2
    )
    assert same.id == opened.id
    with pytest.raises(ResourceExhausted):
        await repository.open_upload(upload(403, "x", tenant), most_uploads=2)
    done = await repository.commit(opened.id, version("x", 1, tenant))
    assert await repository.upload(opened.id) == (opened, done)
    await repository.open_upload(upload(403, "x", tenant), most_uploads=2)
    await repository.drop_upload(f"{401:032x}")
    assert await repository.upload(f"{401:032x}") is None
    with pytest.raises(NotFound):
        await repository.commit(f"{401:032x}", version("x", 1, tenant))


async def test_versions_that_race_get_numbers_of_their_own(
    repository: SqlAdapterRepository,
) -> None:
    tenant = TenantId("race")
    for number in range(500, 504):
        await repository.open_upload(upload(number, "r", tenant), most_uploads=9)
    done = await asyncio.gather(
        *(repository.commit(f"{n:032x}", version("r", n, tenant)) for n in range(500, 504))
    )
    assert sorted(v.number for v in done) == [1, 2, 3, 4]
