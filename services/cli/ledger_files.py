"""Requests from the ledger as a CSV or Parquet file."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv, parquet

from lorikeet.gateway.v1 import usage_service_pb2 as pb
from services.core.errors import AlreadyExists, InvalidRequest
from services.core.types import Tier
from services.runtime.wire import tier_from_wire

Write = Callable[[Sequence[pb.RequestRecord]], None]

ROWS_AT_ONCE = 16_384  # held in memory, and in a row group of Parquet

_TEXTS = ("id", "asked_id", "tenant", "key", "adapter_digest", "model", "base_model", "worker")
_COUNTS = ("prompt_tokens", "cached_tokens", "completion_tokens")
_TIMES = ("queue_us", "first_token_us", "total_us")  # empty where there is none

SCHEMA = pa.schema(
    [(name, pa.string()) for name in _TEXTS]
    + [(name, pa.int64()) for name in _COUNTS]
    + [("accept_time", pa.timestamp("us", tz="UTC"))]
    + [(name, pa.int64()) for name in _TIMES]
    + [("outcome", pa.string()), ("charge", pa.float64()), ("cost", pa.string())]
    + [("tier", pa.string())]  # priority, default, flex
)


@contextmanager
def open_table(file: Path) -> Iterator[Write]:
    """Appends to the file, which is there at the end of the block, whole, or not at all.

    Raises InvalidRequest for another kind of file, AlreadyExists or OSError.
    """
    if file.suffix not in (".csv", ".parquet"):
        raise InvalidRequest.of("FILE", "must end in .csv or .parquet")
    if file.exists():
        raise AlreadyExists(f"{file} exists")
    with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.absolute().parent) as folder:
        made = Path(folder, file.name)
        kind: Any = csv.CSVWriter if file.suffix == ".csv" else parquet.ParquetWriter
        with kind(str(made), SCHEMA) as writer:
            waiting: list[dict[str, Any]] = []

            def flush() -> None:
                writer.write_batch(pa.RecordBatch.from_pylist(waiting, schema=SCHEMA))
                waiting.clear()

            def write(records: Sequence[pb.RequestRecord]) -> None:
                waiting.extend(_row(record) for record in records)
                if len(waiting) >= ROWS_AT_ONCE:
                    flush()

            yield write
            flush()
        made.rename(file)


def _row(record: pb.RequestRecord) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: getattr(record, name) for name in SCHEMA.names if name not in _TIMES
    }
    tier = tier_from_wire(record.tier) or Tier.DEFAULT  # a gateway of before has no other
    row["tier"] = tier.value
    row["accept_time"] = record.accept_time.ToMicroseconds()
    there = {field.name for field, _ in record.ListFields()}
    return row | {name: getattr(record, name) for name in _TIMES if name in there}
