"""Runs revisions; the URL comes from whoever configures alembic."""

import asyncio

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from services.adapter_store import models as adapter_store
from services.gateway import models as gateway
from services.runtime.db import Base
from services.scheduler import models as scheduler
from services.trainer import models as trainer

TABLES = (adapter_store, gateway, scheduler, trainer)  # importing them fills the metadata


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_run() -> None:
    engine = create_async_engine(context.config.get_main_option("sqlalchemy.url") or "")
    async with engine.begin() as connection:
        await connection.run_sync(run)
    await engine.dispose()


asyncio.run(connect_and_run())
