"""Data sets on their way in, and what is kept of them."""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.core.errors import InvalidRequest, NotFound
from services.core.types import TenantId
from services.trainer.datasets import MOST_LABELS, DataSets
from services.trainer.examples import MOST_LINE_BYTES
from services.trainer.jobs import DataKind, DataSet

ACME = TenantId("acme")
GOOD = b'{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n'


async def pieces(data: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.fixture
def data(tmp_path: Path) -> DataSets:
    return DataSets(tmp_path, most_bytes=100)


async def test_what_was_sent_is_there_for_its_tenant(data: DataSets) -> None:
    sent = await data.write(ACME, "d.jsonl", pieces(GOOD))
    digest = hashlib.sha256(GOOD).hexdigest()
    assert sent == DataSet(digest, "d.jsonl", len(GOOD), 2, DataKind.CLASSIFICATION)
    assert await data.get(ACME, digest) == sent
    assert data.path(ACME, sent).read_bytes() == GOOD
    assert await data.write(ACME, "d.jsonl", pieces(GOOD)) == sent
    for tenant, name in ((TenantId("umbrella"), digest), (ACME, "../../acme"), (ACME, "0" * 64)):
        with pytest.raises(NotFound):
            await data.get(tenant, name)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("d.jsonl", b"", "d.jsonl: is empty"),
        ("d.jsonl", GOOD * 2, "d.jsonl: is larger than 100 bytes"),
        ("d.jsonl", GOOD[:28], "d.jsonl: has no label but 'x'"),
        ("d.jsonl", GOOD + b'{"text": "c"}', "d.jsonl:3: 'label' is missing"),
        ("../d.jsonl", GOOD, "must be a file's name"),
    ],
)
async def test_what_is_refused_leaves_nothing(
    data: DataSets, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await data.write(ACME, name, pieces(content))
    assert said in caught.value.message
    assert sum(len(files) for _, _, files in os.walk(tmp_path)) == 0


async def test_lines_and_labels_are_bounded(tmp_path: Path) -> None:
    data = DataSets(tmp_path, most_bytes=1 << 30)
    row = b'{"text": "%s"}\n' % (b"a" * MOST_LINE_BYTES)
    with pytest.raises(InvalidRequest, match=r"d\.jsonl:1: is longer than"):
        await data.write(ACME, "d.jsonl", pieces(row, 1 << 20))
    labels = b"".join(b"text,%d\n" % label for label in range(MOST_LABELS + 1))
    with pytest.raises(InvalidRequest, match=rf"d\.csv:{MOST_LABELS + 2}: is the label number"):
        await data.write(ACME, "d.csv", pieces(b"text,label\n" + labels, 1 << 20))


async def test_old_data_goes_unless_a_job_needs_it(data: DataSets) -> None:
    kept, gone, asked = [
        await data.write(ACME, "d.jsonl", pieces(GOOD.replace(b"a", letter)))
        for letter in (b"k", b"g", b"q")
    ]
    for each in (kept, gone, asked):
        for file in data.path(ACME, each).parent.iterdir():
            os.utime(file, (1000, 1000))
    await data.get(ACME, asked.sha256)
    data.remove_old(3600, {("acme", kept.sha256)})
    assert not data.path(ACME, gone).exists()
    assert data.path(ACME, kept).exists()
    assert data.path(ACME, asked).exists()
