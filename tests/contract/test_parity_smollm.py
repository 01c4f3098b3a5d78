"""Ours against transformers and peft, on the real model: same tokens, same logits."""

from itertools import chain
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from bench.workload import random_adapters
from services.core.types import Digest, RequestId
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.kernels.device import Device
from services.gpu_worker.model.config import read_config
from services.gpu_worker.model.gguf import read_gguf
from services.gpu_worker.model.loading import Build, LoadedModel
from services.gpu_worker.model.parallel.collectives import Matter
from tests.engines import TestBench, greedy
from tests.merging import Told, merge
from tests.parallel import group
from tests.parity import with_adapters
from tests.references import adapter_configs, canonical_of, logits_of, smollm, smollm_folder

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENS = 64
PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):",
    "<|im_start|>user\nWhat is gravity?<|im_end|>\n<|im_start|>assistant\n",
    "Once upon a time, in a village by the sea,",
    "2 + 2 =",
    "The quick brown fox",
    "Dear Sir or Madam,",
    "SELECT name FROM users WHERE",
    "Les enfants jouent dans",
    "To make bread you need",
    "In 1969, Neil Armstrong",
    "Roses are red, violets are",
    "The opposite of hot is",
    "A list of planets: Mercury, Venus,",
    "<|im_start|>user\nTell me a joke.<|im_end|>\n<|im_start|>assistant\n",
    "import numpy as np\n\nx = np.",
]


@pytest.fixture(scope="module")
def reference() -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(
        str(smollm_folder()), gguf_file=GGUF, dtype=torch.float32
    ).eval()


@pytest.mark.timeout(600)
def test_a_mixed_batch_gives_every_request_its_own_models_answer(
    reference: torch.nn.Module,
) -> None:
    model = smollm()
    tokenizer = Tokenizer.from_str(model.card.tokenizer_json.decode())
    prompts = [tokenizer.encode(p, add_special_tokens=False).ids for p in PROMPTS]
    bench = TestBench(model, Limits(max_sequences=128))
    files: dict[str, bytes] = {}
    digests: dict[str, Digest | None] = {"base": None}
    for name, adapted in with_adapters(reference):
        files[name] = canonical_of(adapted, model.card.fingerprint)
        digests[name] = bench.load(files[name])
    halves = {name: range(at % 2, len(prompts), 2) for at, name in enumerate(digests)}
    halves["base"] = range(len(prompts))
    requests = [
        greedy(f"{name}/{index}", prompts[index], digest, TOKENS)
        for name, digest in digests.items()
        for index in halves[name]
    ]
    answers = bench.generate(requests)

    worst = dict.fromkeys(digests, 0.0)
    beyond = compared = 0
    for name, adapted in chain([("base", reference)], with_adapters(reference)):
        for index in halves[name]:
            request, prompt = RequestId(f"{name}/{index}"), prompts[index]
            answer = answers[request]
            expected = logits_of(adapted, [*prompt, *answer[:-1]])[len(prompt) - 1 :]
            assert expected.argmax(-1).tolist() == answer, request
            logits = bench.logits(request)
            difference = (expected - logits).abs()
            beyond += int((difference > 1e-4).sum())
            compared += difference.numel()
            worst[name] = max(worst[name], float(difference.max()))
    print("largest difference of a logit:", {k: f"{v:.2e}" for k, v in worst.items()})
    print(f"beyond 1e-4: {beyond} of {compared}")
    # Logits reach 45 and fp32 is noisy here: transformers itself is up to 1.4e-4 from its own
    # answer in float64.
    assert beyond < 1e-4 * compared
    assert max(worst.values()) <= 3e-4
    for name in adapter_configs():  # an adapter that is skipped would be noticed
        pairs = [(f"{name}/{i}", f"base/{i}") for i in halves[name]]
        assert any(answers[RequestId(a)] != answers[RequestId(b)] for a, b in pairs), name

    alone = TestBench(model)
    for name in ("all-8", "pattern-8"):
        digest = alone.load(files[name])
        index = halves[name][0]
        single = alone.generate([greedy("alone", prompts[index], digest, TOKENS)])
        assert single[RequestId("alone")] == answers[RequestId(f"{name}/{index}")]


@pytest.mark.timeout(300)
def test_an_adapter_in_the_weights_changes_no_answer() -> None:
    """D2: of the base, of the adapter that is merged and of another, in one batch."""
    model, policy = smollm(), Told()
    tokenizer = Tokenizer.from_str(model.card.tokenizer_json.decode())
    prompts = [tokenizer.encode(p, add_special_tokens=False).ids for p in PROMPTS[::8]]
    adapters = random_adapters(model.card, 2, ranks=[8])
    files = [b"".join(map(bytes, adapter.pieces())) for adapter in adapters]
    plain, mixed = TestBench(model), TestBench(model, merging=policy)
    digests = [(plain.load(data), mixed.load(data))[0] for data in files]
    mixed.engine.submit(greedy("warm", prompts[0], digests[0]))
    merge(mixed, policy, digests[0])
    mixed.engine.cancel(RequestId("warm"))
    requests = [
        greedy(f"{adapter}/{index}", prompt, adapter, 8)
        for adapter in (None, *digests)
        for index, prompt in enumerate(prompts)
    ]
    assert mixed.generate(requests) == plain.generate(requests)
    assert {batch.merged for batch in policy.ran_batches[-8:]} == {digests[0]}
    differences = [(mixed.logits(r.id) - plain.logits(r.id)).abs() for r in requests]
    assert max(float(each.max()) for each in differences) <= 3e-4  # see above
    assert sum(int((each > 1e-4).sum()) for each in differences) <= 1e-4 * sum(
        each.numel() for each in differences
    )


@pytest.mark.timeout(300)
def test_a_group_of_three_changes_no_answer() -> None:
    """Its nine heads and three of keys are for two or four to refuse."""
    model = smollm()
    tokenizer = Tokenizer.from_str(model.card.tokenizer_json.decode())
    prompts = [tokenizer.encode(p, add_special_tokens=False).ids for p in PROMPTS[::8]]
    adapters = random_adapters(model.card, 3, ranks=[8, 16, 32])
    files = [b"".join(map(bytes, adapter.pieces())) for adapter in adapters]
    found = read_gguf(smollm_folder() / GGUF)

    def load(path: Path, *, device: Device, build: Build) -> LoadedModel:
        config = read_config(found.config)
        return LoadedModel(model.card, build(config, found.weights, device, found.rope_divisors))

    plain = TestBench(model, pages=160)
    with group(smollm_folder(), 3, load=load, pages=160) as bench:
        digests = [(plain.load(data), bench.load(data))[0] for data in files]
        requests = [
            greedy(f"{adapter}/{index}", prompt, adapter, 3)
            for adapter in (None, *digests)
            for index, prompt in enumerate(prompts)
        ]
        assert bench.generate(requests) == plain.generate(requests)
        assert bench.collectives.traffic.sent[Matter.LORA] > 0
        differences = [(bench.logits(r.id) - plain.logits(r.id)).abs() for r in requests]
    assert max(float(each.max()) for each in differences) <= 3e-4  # see above
    assert sum(int((each > 1e-4).sum()) for each in differences) <= 1e-4 * sum(
        each.numel() for each in differences
    )
