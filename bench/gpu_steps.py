"""Whole steps of a model on a GPU, and transformers with peft on one of the same shape."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from bench.gpu_model import PAGE, RANKS, Row, Size, made_model, random_packing
from bench.streams import Timings
from bench.workload import prompt
from services.core.types import Digest, RequestId, SamplingParams
from services.gpu_worker.engine.batcher import Batcher
from services.gpu_worker.engine.engine import Engine
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.kernels.cuda.device import CudaDevice
from services.gpu_worker.model.adapters import AdapterWeights
from services.gpu_worker.model.arena import page_elements
from services.gpu_worker.model.llama import Llama
from services.gpu_worker.model.runner import TorchRunner

Made = tuple[Engine, list[Digest]]


def made_engine(network: Llama, size: Size, packings: Sequence[Any]) -> Made | None:
    """With every adapter resident; None if they do not fit the device."""
    elements = page_elements(network.config, PAGE)
    needed = sum(len(packing.image) for packing in packings)
    tokens = 2 * size.requests * (size.prompt + size.outputs)
    pages = needed + tokens // PAGE + size.requests + 64
    if torch.cuda.is_available():
        pages = max(
            pages, network.device.spare_memory() // (elements * network.device.dtype.itemsize)
        )
    if needed + tokens // PAGE > pages:
        return None
    limits = Limits(max_sequences=size.requests, max_step_tokens=2048)
    pool = Pool(pages, page_tokens=PAGE, keeps_prefixes=False)
    engine = Engine(
        batcher=Batcher(limits=limits, pool=pool, context_tokens=network.config.context),
        runner=TorchRunner(network, pages=pages, page_tokens=PAGE),
        pool=pool,
        end_tokens=(),
    )
    digests = []
    for index, packing in enumerate(packings):
        digest = Digest(f"{index:064d}")
        fill = engine.reserve(digest, AdapterWeights(packing))
        assert fill is not None
        fill()
        engine.activate(digest)
        digests.append(digest)
    return engine, digests


def drive(engine: Engine, size: Size, digests: Sequence[Digest]) -> float:
    """Output tokens a second with all requests at once, adapters in turn."""
    for index in range(size.requests):
        sampling = SamplingParams(max_tokens=size.outputs, temperature=0.0, ignore_eos=True)
        adapter = digests[index % len(digests)] if digests else None
        ids = tuple(token % size.config.vocabulary for token in prompt(index, size.prompt))
        engine.submit(EngineRequest(RequestId(str(index)), ids, sampling, adapter))
    timings = Timings()
    while not (report := engine.step()).is_idle:
        timings.tokens += sum(len(piece.tokens) for _, piece in report.pieces)
    return timings.tokens / timings.now


def end_to_end(device: CudaDevice, size: Size) -> list[Row]:
    network = made_model(size.config, device)
    elements = page_elements(size.config, PAGE)
    rows, alone = [], 0.0
    for ranks in RANKS if torch.cuda.is_available() else RANKS[-1:]:
        made = {rank: random_packing(size.config, rank, elements) for rank in ranks}
        # One host image a rank, under many digests: on the device each has pages of its own.
        made = {rank: replace(p, image=device.stage(p.image)) for rank, p in made.items()}
        for count in size.swept:
            packings = [made[ranks[i % len(ranks)]] for i in range(count)]
            made_now = made_engine(network, size, packings)
            if made_now is None:
                print(f"{count} adapters of {list(ranks)} do not fit", flush=True)
                continue
            engine, digests = made_now
            drive(engine, size, digests[: size.requests])  # compiles, warms
            rate = drive(engine, size, digests)
            alone = alone or rate
            name = f"end to end, {count} adapters of {list(ranks)}, {size.requests} requests"
            rows.append(Row(name, rate, "tokens/s", rate / alone))
            print(rows[-1], flush=True)
            del engine, made_now
            torch.cuda.empty_cache()
    del network
    torch.cuda.empty_cache()
    return rows


def peer(device: CudaDevice, size: Size) -> list[Row]:
    """transformers and peft, mixed batches, random weights of the same shape."""
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
    requests = min(size.requests, 32)
    ids = torch.tensor([prompt(i, size.prompt) for i in range(requests)], device=device.place)
    ids %= config.vocabulary
    rows = []
    model: Any = base
    for count in (0, *size.adapters):
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
        rows.append(
            Row(f"transformers and peft, {count} adapters, {requests} requests", rate, "tokens/s")
        )
        print(rows[-1], flush=True)
    return rows
