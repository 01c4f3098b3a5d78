"""What a federation leaves: a PEFT folder, who took part, and news on the way."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from services.trainer.federated.words import Factors
from services.trainer.federation import TookPart
from services.trainer.flower.news import follow, tell
from services.trainer.flower.saving import save_adapter
from services.trainer.jobs import Checkpoint, Point
from services.trainer.publication import participants_of
from services.trainer.task import News
from tests.training import saved_base

SITES = {name: TookPart(name, name * 64, 5, 2) for name in ("a", "b")}


def _factors(rows: int, columns: int, rank: int, scaling: float) -> Factors:
    draw = np.random.Generator(np.random.Philox(rank))
    a, b = draw.standard_normal((rank, columns)), draw.standard_normal((rows, rank))
    return Factors(a.astype(np.float32), b.astype(np.float32), scaling)


def test_peft_adds_the_very_product_whatever_rank_and_scaling_a_layer_has(tmp_path: Path) -> None:
    base: Any = AutoModelForCausalLM.from_pretrained(saved_base(tmp_path / "tiny"))
    linears: dict[str, Any] = {
        name: base.get_submodule(name)
        for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj")
    }
    before = {name: each.weight.detach().numpy().copy() for name, each in linears.items()}
    factors = {
        name: _factors(each.out_features, each.in_features, rank, scaling)
        for (name, each), rank, scaling in zip(linears.items(), (2, 3), (0.5, 4.0), strict=True)
    }
    save_adapter(tmp_path / "result", factors, base_name="tiny", participants=SITES)
    adapted: Any = PeftModel.from_pretrained(base, str(tmp_path / "result"))
    merged = adapted.merge_and_unload()
    for name, each in factors.items():
        added = merged.get_submodule(name).weight.detach().numpy() - before[name]
        torch.testing.assert_close(added, each.delta, atol=1e-5, rtol=1e-5)
    assert participants_of(tmp_path / "result") == [SITES["a"], SITES["b"]]
    assert participants_of(tmp_path) == []


def test_news_are_whole_and_all_heard(tmp_path: Path) -> None:
    file, over = tmp_path / "news.jsonl", threading.Event()
    news: list[News] = [Point(1, 2.5), Checkpoint("1-1", 1, 3), Point(2, 2.0)]
    tell(file, news[0])
    heard = []
    for each in follow(file, lambda: not over.is_set()):
        heard.append(each)
        if len(heard) == 1:
            line = json.dumps({"is": "Checkpoint", "name": "1-1", "steps": 1, "total_steps": 3})
            with file.open("a") as out:
                out.write(line[:10])
                out.flush()
                out.write(line[10:] + "\n")
        if len(heard) == 2:
            tell(file, news[2])
            with file.open("a") as out:
                out.write('{"is": "Poi')  # it died within a line
            over.set()
    assert heard == news
