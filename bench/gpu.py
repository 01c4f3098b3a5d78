"""Everything that is claimed of a GPU, in one command there: python -m bench.gpu

Checks every kernel against its reference first, and stops if one is wrong. Then times kernels,
whole steps of a model with random weights, and transformers with peft on one of the same shape.
Needs torch, triton, numpy, safetensors, tokenizers; pytest for the checks, transformers and peft
for the peer. Without CUDA it runs small under TRITON_INTERPRET=1, which shows only that it runs.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from bench import gpu_kernels, gpu_steps
from bench.gpu_model import FULL, SMALL, Row
from bench.results import save
from services.gpu_worker.kernels.cuda.device import CudaDevice

ROOT = Path(__file__).parent.parent


def checked() -> None:
    """Every kernel and a whole model against their references, on this device."""
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", str(ROOT)]
    command += ["-p", "no:cacheprovider", "--import-mode=importlib", str(ROOT / "tests" / "gpu")]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
    )
    if done.returncode:
        raise SystemExit("a kernel is wrong: nothing is timed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.gpu")
    parser.add_argument("--parts", default="check,kernels,model,peer", help="a list")
    parser.add_argument("--dtype", default="bfloat16")
    asked = parser.parse_args()
    parts = asked.parts.split(",")
    real = torch.cuda.is_available()
    size = FULL if real else SMALL
    dtype = getattr(torch, asked.dtype) if real else torch.float32
    device = CudaDevice(torch.device("cuda" if real else "cpu"), dtype)
    if "check" in parts:
        checked()
    speed = gpu_kernels.bandwidth(device, size)
    rows = [Row("copy bandwidth, read and written", speed / 1e9, "GB/s")]
    if "kernels" in parts:
        rows += gpu_kernels.lora(device, size, speed)
        rows += gpu_kernels.attention(device, size, speed)
    if "model" in parts:
        rows += gpu_steps.end_to_end(device, size)
    if "peer" in parts:
        rows += gpu_steps.peer(device, size)
    for row in rows:
        share = "" if row.share is None else f"{row.share:.2f}"
        print(f"{row.measured:70} {row.value:10.4g} {row.unit:8} {share}")
    if real:
        save("gpu", {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
