"""Files of requests: what stands in their columns."""

import csv
from pathlib import Path

import pytest
from pyarrow import parquet

from lorikeet.gateway.v1.usage_service_pb2 import RequestRecord
from lorikeet.types.v1.tier_pb2 import ServiceTier
from services.cli.ledger_files import open_table
from services.core.errors import InvalidRequest


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_tier_is_a_word(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"usage.{kind}"
    with open_table(file) as write:
        write([RequestRecord(id=name, tier=tier) for name, tier in ServiceTier.items()])
    if kind == "csv":
        with file.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
    else:
        rows = parquet.read_table(file).to_pylist()
    assert {row["id"]: row["tier"] for row in rows} == {
        "SERVICE_TIER_UNSPECIFIED": "default",  # of a gateway that knows of no tiers
        "SERVICE_TIER_PRIORITY": "priority",
        "SERVICE_TIER_DEFAULT": "default",
        "SERVICE_TIER_FLEX": "flex",
    }


def test_a_tier_of_a_later_release_is_not_taken_for_another(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidRequest, match="service_tier"),
        open_table(tmp_path / "usage.csv") as write,
    ):
        write([RequestRecord(id="r", tier=99)])  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
