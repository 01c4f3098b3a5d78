"""Adapters under a prefix of a bucket, from a real S3 endpoint."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.cli.sources import s3
from services.cli.sources.s3 import fetch
from services.core.errors import ServingError
from tests.buckets import bucket

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DATA = os.urandom(300_000)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(s3, "RANGE_BYTES", 64 * 1024)
    with bucket("models", monkeypatch) as client:
        for key, data in {
            f"team/sql/{CONFIG}": b"{}",
            f"team/sql/{WEIGHTS}": DATA,
            f"team/sql/step-10/{CONFIG}": b"older",
            f"team/sql/step-10/{WEIGHTS}": b"older",
            f"team/old/{CONFIG}": b"{}",
            "team/old/adapter_model.bin": b"\x80\x02",
        }.items():
            client.put_object(Bucket="models", Key=key, Body=data)
        yield client


def fetched(url: str, to: Path, subfolder: str = "", most_bytes: int = 1 << 30) -> list[int]:
    """How far it was at each step."""
    to.mkdir()
    steps: list[int] = []

    def advance(done: int, total: int) -> None:
        assert done <= total
        steps.append(done)

    fetch(url, to, subfolder=subfolder, most_bytes=most_bytes, advance=advance)
    return steps


def test_two_files_are_fetched_range_by_range(client: Any, tmp_path: Path) -> None:
    steps = fetched("s3://models/team/sql", tmp_path / "a")
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == DATA
    assert (tmp_path / "a" / CONFIG).read_bytes() == b"{}"
    assert steps == [2, *(2 + 65536 * i for i in range(1, 5)), 300_002]
    fetched("s3://models/team/", tmp_path / "b", "sql/step-10")
    assert (tmp_path / "b" / WEIGHTS).read_bytes() == b"older"


def test_an_object_that_changes_meanwhile_is_not_mixed(client: Any, tmp_path: Path) -> None:
    def change(done: int, total: int) -> None:
        client.put_object(Bucket="models", Key=f"team/sql/{WEIGHTS}", Body=DATA[::-1])

    with pytest.raises(ServingError, match="s3://models/team/sql: "):
        fetch("s3://models/team/sql", tmp_path, subfolder="", most_bytes=1 << 30, advance=change)


@pytest.mark.parametrize(
    ("url", "most_bytes", "says"),
    [
        ("s3://models/team/old", 1 << 30, r"no adapter_model.safetensors \(adapter_model.bin is a"),
        ("s3://models/nothing", 1 << 30, "no adapter_config.json and no adapter_model.safetensors"),
        ("s3://models/team/sql", 300_001, "has 300002 bytes; --max-bytes allows more"),
        ("s3://elsewhere/team", 1 << 30, "s3://elsewhere/team: "),
        ("s3://", 1 << 30, "s3://: "),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(
    client: Any, url: str, most_bytes: int, says: str, tmp_path: Path
) -> None:
    with pytest.raises(ServingError, match=says) as error:
        fetched(url, tmp_path / "x", most_bytes=most_bytes)
    assert "\n" not in error.value.message
    assert not list((tmp_path / "x").iterdir())
