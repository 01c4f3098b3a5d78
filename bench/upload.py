"""A large adapter through the whole door: python -m bench.upload

The command line uploads it through the gateway, in turns with a copy of the file and its SHA-256 on
the same disk, and the store's memory is watched meanwhile. Every turn uploads other weights.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from bench.gateway import new_key
from bench.results import save
from services.adapter_store.tensors import WEIGHTS
from services.cli.suite import Suite, embedded_model, free_addresses, only_one
from services.gpu_worker.model.loading import load_model

GIBIBYTE = 1 << 30
MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    seconds: float
    mebibytes_per_second: float
    of_copy_and_sha256: float  # throughput, as a ratio
    store_mebibytes_over_idle: float


def written_adapter(folder: Path, size_bytes: int) -> int:
    """A PEFT folder with one all-linear adapter of about that size; its rank."""
    modules = load_model(embedded_model()).card.modules
    rank = size_bytes // (4 * sum(module.in_features + module.out_features for module in modules))
    random = np.random.default_rng(0)
    tensors = {}
    for module in modules:
        for side, shape in (
            ("A", (rank, module.in_features)),
            ("B", (module.out_features, rank)),
        ):
            values = random.standard_normal(shape, np.float32)
            tensors[f"base_model.model.{module.path}.lora_{side}.weight"] = values
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": "all-linear",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return rank


def change(weights: Path) -> None:
    """One number, so that the store has never seen these weights."""
    with weights.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(time.monotonic()).tobytes())


def copied(weights: Path, *, durable: bool) -> float:
    """Seconds for a copy and its SHA-256."""
    to = weights.with_name("copy")
    begun = time.perf_counter()
    shutil.copyfile(weights, to)
    with to.open("rb") as file:
        if durable:
            os.fsync(file.fileno())
        hashlib.file_digest(file, "sha256")
    seconds = time.perf_counter() - begun
    to.unlink()
    return seconds


class Memory:
    """Of a process: resident now, and the most while `watched`, in MiB."""

    def __init__(self, process: int) -> None:
        self._status = Path(f"/proc/{process}/status")
        self.most = 0.0

    def now(self) -> float:
        lines = self._status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    @contextmanager
    def watched(self) -> Iterator[None]:
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                self.most = max(self.most, self.now())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def uploaded(folder: Path, name: str, environment: dict[str, str]) -> float:
    """Seconds for the whole command, from its start to its end."""
    command = [sys.executable, "-c", "from services.cli.app import main; main()"]
    asked = ["adapters", "upload", str(folder), "--name", name]
    begun = time.perf_counter()
    subprocess.run([*command, *asked], env=environment, check=True, capture_output=True)
    return time.perf_counter() - begun


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.upload")
    parser.add_argument("--gibibytes", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place, only_one(Path(place) / "home"):
        folder, small = Path(place) / "large", Path(place) / "small"
        rank = written_adapter(folder, int(asked.gibibytes * GIBIBYTE))
        written_adapter(small, 8 * MEBIBYTE)
        os.environ["ADAPTER_STORE_LIMITS"] = json.dumps({"max_rank": rank})
        suite = Suite(
            Path(place) / "home", free_addresses(), embedded_model(), memory_mebibytes=1024
        )
        try:
            profile = suite.start(lambda step: print(step, flush=True))
            key = new_key(profile.server, profile.operator_token)
            us = os.environ | {"LORIKEET_SERVER": profile.server, "LORIKEET_KEY": key}
            memory = Memory(suite.processes["adapter_store"].pid)
            rows = measure(folder, small, us, memory, repeats=asked.repeats)
        finally:
            suite.stop()
    for row in rows:
        print(row)
    save("upload", {"rows": [asdict(row) for row in rows]})


def measure(
    folder: Path, small: Path, environment: dict[str, str], memory: Memory, *, repeats: int
) -> list[Row]:
    uploaded(small, "small", environment)
    idle, weights = memory.now(), folder / WEIGHTS
    size = weights.stat().st_size / MEBIBYTE
    seconds: dict[str, list[float]] = {"copy and SHA-256": [], "the same, durable": []}
    seconds["upload"] = []
    for _ in range(repeats):
        change(weights)
        seconds["copy and SHA-256"].append(copied(weights, durable=False))
        seconds["the same, durable"].append(copied(weights, durable=True))
        with memory.watched():
            seconds["upload"].append(uploaded(folder, "large", environment))
        print({what: round(taken[-1], 2) for what, taken in seconds.items()}, flush=True)
    plain = seconds["copy and SHA-256"]
    return [
        Row(
            what,
            statistics.median(taken),
            size / statistics.median(taken),
            statistics.median([p / t for p, t in zip(plain, taken, strict=True)]),
            memory.most - idle if what == "upload" else 0.0,
        )
        for what, taken in seconds.items()
    ]


if __name__ == "__main__":
    main()
