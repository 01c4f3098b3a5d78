"""Uploads in canonical form: parts in any cuts are read, judged and written as the whole is."""

import errno
import itertools
import json
from io import BytesIO
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from services.adapter_store import direct as past_cache
from services.adapter_store.arrangement import Arrangement, Part, arrange
from services.adapter_store.arrival import Arrival
from services.adapter_store.peft import read_config
from services.adapter_store.receiving import writing
from services.adapter_store.wire import parts_to_wire
from services.cli.content import InParts
from tests.peft_folders import peft_config
from tests.unit.adapter_store.test_validation import BASE
from tests.uploading import DATA, header, sha256
from tests.validated import validated


def test_nothing_is_written_behind_what_could_not_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    with writing(path, 0, past_cache=False) as file:
        file.add(memoryview(b"first"))
        with monkeypatch.context() as full:
            full.setattr(past_cache, "write", refuse)
            with pytest.raises(OSError, match="full"):
                file.add(memoryview(b"second"))
        file.add(memoryview(b"third"))
    assert path.read_bytes() == b"first"


def refuse(handle: int, data: memoryview) -> None:
    raise OSError(errno.ENOSPC, "full")


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_bytes_of_what_was_asked_for_can_be_read(draw: st.DataObject) -> None:
    tensors = load(DATA)
    kinds = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])
    data = save({name: tensor.to(draw.draw(kinds)) for name, tensor in sorted(tensors.items())})
    config = read_config(json.dumps(peft_config(base_model_name_or_path="tiny")))
    arrangement = arrange(header(data), len(data), config, BASE, max_rank=64)
    expected = validated(data, config, BASE, max_rank=64).data
    content = InParts(BytesIO(data), parts_to_wire(arrangement))
    for _ in range(3):
        start = draw.draw(st.integers(0, len(expected)))
        length = draw.draw(st.integers(0, len(expected)))
        assert content.read(start, length) == expected[start : start + length]
    assert content.sha256() == sha256(expected)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_value_is_judged_wherever_it_was_cut(draw: st.DataObject) -> None:
    dtype = draw.draw(st.sampled_from(["F32", "F16", "BF16"]))
    width = 4 if dtype == "F32" else 2
    data = draw.draw(st.binary(min_size=12 * width, max_size=12 * width))
    scaling = draw.draw(st.sampled_from([0.5, 1.0, 3.0, 1e30]))
    part = Part(0, (4, 3), dtype, True, "path", scaling)
    arrival = Arrival(Arrangement(b"head", (part,), {}))
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data) + 4), max_size=5)))
    for start, end in itertools.pairwise([0, *cuts, len(data) + 4]):
        arrival.take(memoryview(b"head" + data)[start:end], start)
    assert arrival.hexdigest() == sha256(b"head" + data)
    kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]
    values = torch.frombuffer(bytearray(data), dtype=kind).float()
    scaled = values * (1.0 if dtype == "F16" else max(1.0, scaling))
    assert bool(arrival.not_finite()) == (not scaled.isfinite().all())
