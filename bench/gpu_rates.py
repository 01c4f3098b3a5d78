"""Output tokens a second of a model on a GPU, and of transformers with peft on one of its shape."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from bench.gpu_engines import in_turn, made_rig
from bench.gpu_model import PAGE, RANKS, Found, Row, Size, claim, made_model, random_packing
from bench.workload import prompt
from services.core.types import Digest
from services.gpu_worker.kernels.cuda.device import CudaDevice
from services.gpu_worker.model.arena import page_elements

FEW, SIXTEEN = 5, (16,)


def rates(device: CudaDevice, size: Size, _: float) -> Found:
    """All requests at once, with adapters in turn, and drawn as people draw them."""
    network = made_model(size.config, device)
    elements = page_elements(size.config, PAGE)
    rows: list[Row] = []
    found: dict[tuple[tuple[int, ...], int, str], float] = {}
    for ranks in RANKS if torch.cuda.is_available() else RANKS[-1:]:
        made = {rank: random_packing(size.config, rank, elements) for rank in ranks}
        # One host image a rank, under many digests: on the device each has pages of its own.
        made = {rank: replace(p, image=device.stage(p.image)) for rank, p in made.items()}
        for count in size.swept:
            rig = made_rig(network, size, [made[ranks[i % len(ranks)]] for i in range(count)])
            if rig is None:
                print(f"{count} adapters of {list(ranks)} do not fit", flush=True)
                continue
            for how, chosen in (
                ("in turn", in_turn(rig.digests, size.requests)),
                ("drawn by Zipf", drawn(rig.digests, size.requests)),
            ):
                rig.rate(chosen)  # compiles, warms
                rate = found[ranks, count, how] = rig.rate(chosen)
                alone = next(iter(found.values()))
                name = f"{count} adapters of {list(ranks)} {how}, {size.requests} requests"
                rows.append(Row(name, rate, "tokens/s", rate / alone))
                print(rows[-1], flush=True)
            del rig
            torch.cuda.empty_cache()
    claims = [
        claim(f"{size.many} adapters {how} over {FEW}", found[many], found[few], ">= 0.95")
        for how in ("in turn", "drawn by Zipf")
        if (many := (SIXTEEN, size.many, how)) in found and (few := (SIXTEEN, FEW, how)) in found
    ]
    return rows, claims


def drawn(digests: Sequence[Digest], count: int) -> list[Digest | None]:
    """The k-th as often as 1 / k says."""
    if not digests:
        return [None] * count
    often = 1 / np.arange(1, len(digests) + 1)
    chosen = np.random.default_rng(7).choice(len(digests), count, p=often / often.sum())
    return [digests[index] for index in chosen]


def peers(device: CudaDevice, size: Size, _: float) -> Found:
    """Of the largest number of adapters that peft has, ours is the rate of as many requests."""
    theirs = peer(device, size)
    most = max(theirs)
    packing = random_packing(size.config, 16, page_elements(size.config, PAGE))
    packing = replace(packing, image=device.stage(packing.image))
    rig = made_rig(made_model(size.config, device), size, [packing] * most)
    rows = [
        Row(
            f"transformers and peft, {count} adapters, {_requests(size)} requests", rate, "tokens/s"
        )
        for count, rate in theirs.items()
    ]
    if rig is None:
        return rows, []
    rig.rate(in_turn(rig.digests, _requests(size)))
    own = rig.rate(in_turn(rig.digests, _requests(size)))
    return rows, [claim(f"{most} adapters over transformers and peft", own, theirs[most], ">= 30")]


def _requests(size: Size) -> int:
    return min(size.requests, 32)


def peer(device: CudaDevice, size: Size) -> dict[int, float]:
    """transformers and peft, mixed batches, random weights of the same shape: by adapters."""
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    config = size.config
    with torch.device(device.place):
        torch.set_default_dtype(device.dtype)
        base: Any = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=config.vocabulary, hidden_size=config.hidden,
                intermediate_size=config.intermediate, num_hidden_layers=config.layers,
                num_attention_heads=config.heads, num_key_value_heads=config.kv_heads,
            )
        )  # fmt: skip
        torch.set_default_dtype(torch.float32)
    base.eval()
    requests = _requests(size)
    ids = torch.tensor([prompt(i, size.prompt) for i in range(requests)], device=device.place)
    ids %= config.vocabulary
    rates_: dict[int, float] = {}
    model: Any = base
    for count in size.peers:
        names: list[str] | None = None
        for index in range(count):
            lora_config = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
            if index == 0:
                model = get_peft_model(base, lora_config, adapter_name="a0")
            elif f"a{index}" not in model.peft_config:
                model.add_adapter(f"a{index}", lora_config)
        if count:
            model = model.to(device.place, device.dtype).eval()
            names = [f"a{i % count}" for i in range(requests)]
        how = {"adapter_names": names} if names else {}
        for _ in range(2):
            begun = time.perf_counter()
            with torch.inference_mode():
                model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
                    max_new_tokens=size.outputs, min_new_tokens=size.outputs, pad_token_id=0, **how,
                )  # fmt: skip
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            rate = requests * size.outputs / (time.perf_counter() - begun)
        rates_[count] = rate
        print(f"transformers and peft, {count} adapters: {rate:.4g} tokens/s", flush=True)
    return rates_
