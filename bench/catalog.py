"""A store of 100,000 versions: how long a page and a resolution take: python -m bench.catalog

On SQLite, and on a PostgreSQL server of its own, as the store asks them; medians.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import insert

from bench.results import save
from services.adapter_store.lifecycle import Lifecycle
from services.adapter_store.models import AdapterRow, AdapterVersionRow, BaseModelRow, BlobRow
from services.adapter_store.records import Ask, VersionFilter
from services.adapter_store.repositories.aliases import SqlAliasRepository
from services.adapter_store.repositories.shares import SqlShareRepository
from services.adapter_store.repositories.versions import SqlVersionRepository
from services.adapter_store.resolution import Resolver
from services.core.types import TenantId
from services.runtime.db import close_sessions, open_sessions, writing
from tests.databases import KINDS, migrated

ADAPTERS = 1000
TENANT = TenantId("bench")
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Row:
    database: str
    asked: str
    milliseconds: float
    target: str


async def fill(url: str, versions: int) -> None:
    """`versions` of ADAPTERS adapters, in turn; weights that nobody will read."""
    sessions = open_sessions(url)
    async with writing(sessions) as session:
        base = {"name": "tiny", "fingerprint": "f" * 64, "card": {}, "tokenizer_json": b"{}"}
        await session.execute(insert(BaseModelRow), [base | {"created_us": 0}])
        last = versions // ADAPTERS
        adapters = [
            {"tenant": TENANT, "name": f"a{i:04}", "last_number": last, "created_us": 0}
            for i in range(ADAPTERS)
        ]
        await session.execute(insert(AdapterRow), adapters)
    for first in range(0, versions, BATCH):
        numbers = range(first, min(versions, first + BATCH))
        async with writing(sessions) as session:
            await session.execute(
                insert(BlobRow),
                [{"digest": f"{i:064x}", "key": f"{i}", "leased_until_us": 0} for i in numbers],
            )
            await session.execute(
                insert(AdapterVersionRow),
                [
                    {
                        "tenant": TENANT,
                        "adapter": f"a{i % ADAPTERS:04}",
                        "number": i // ADAPTERS + 1,
                        "digest": f"{i:064x}",
                        "base_model": "tiny",
                        "base_fingerprint": "f" * 64,
                        "size_bytes": 1,
                        "max_rank": 8,
                        "module_count": 210,
                        "parameter_count": 1,
                        "provenance": {"labels": {"team": "search"}, "metrics": {"f1": 0.5}},
                        "ranks": {f"{layer}.q": 8 for layer in range(30)},
                        "config_json": "{}" * 300,
                        "created_us": i,
                    }
                    for i in numbers
                ],
            )
    await close_sessions(sessions)


async def median_ms(work: Callable[[int], Awaitable[object]], times: int = 300) -> float:
    taken = []
    for index in range(times):
        begun = time.perf_counter()
        await work(index)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1000


async def measure(database: str, url: str) -> list[Row]:
    sessions = open_sessions(url)
    versions, aliases = SqlVersionRepository(sessions), SqlAliasRepository(sessions)
    resolver = Resolver(versions, aliases, SqlShareRepository(sessions))
    lifecycle = Lifecycle(aliases, resolver)
    for index in range(0, ADAPTERS, 2):
        await lifecycle.promote(TENANT, f"a{index:04}", "7", Ask(by="bench"))

    def adapter(index: int) -> str:
        return f"a{index * 617 % ADAPTERS:04}"

    async def resolve(index: int) -> None:
        await resolver.resolve(TENANT, adapter(index), request="")

    async def list_versions(index: int) -> None:
        await versions.versions(TENANT, adapter(index), VersionFilter(), before=None, limit=51)

    async def list_adapters(index: int) -> None:
        await versions.adapters(TENANT, after=adapter(index), limit=51)

    rows = [
        Row(database, "resolve a name", await median_ms(resolve), "< 2"),
        Row(database, "50 versions of an adapter", await median_ms(list_versions), "< 20"),
        Row(database, "50 adapters", await median_ms(list_adapters), "< 20"),
    ]
    await close_sessions(sessions)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.catalog")
    parser.add_argument("--versions", type=int, default=100_000)
    asked = parser.parse_args()
    rows: list[Row] = []
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder, migrated(kind, Path(folder)) as url:
            asyncio.run(fill(url, asked.versions))
            found = asyncio.run(measure(kind, url))
        for row in found:
            print(f"{row.database}: {row.asked} {row.milliseconds:.2f} ms (wanted {row.target})")
        rows += found
    save("catalog", {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
