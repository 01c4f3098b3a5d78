"""Everything that is claimed of a GPU, in one command there: python -m bench.gpu

Checks every kernel against its reference first, and stops if one is wrong. Then times kernels, by
themselves and under their roofs (`python -m bench.gpu_plot` draws that), steps and whole runs of a
model with random weights, one adapter in the weights, little memory, and transformers with peft on
a model of the same shape. `--parts tune` searches how kernels are best launched, and writes it to
services/gpu_worker/kernels/cuda/configs/; `--parts check` comes after. Needs torch, triton, numpy,
safetensors, tokenizers; pytest for the checks, transformers and peft for the peer. Without CUDA it
runs small under TRITON_INTERPRET=1, which shows only that it runs.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench import (
    gpu_kernels,
    gpu_merging,
    gpu_pressure,
    gpu_rates,
    gpu_roofline,
    gpu_steps,
    gpu_tune,
)
from bench.gpu_model import FULL, SMALL, Claim, Found, Row, Size
from bench.gpu_roofline import Point, Roof
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


MODELS: dict[str, Callable[[CudaDevice, Size, float], Found]] = {
    "steps": gpu_steps.steps,
    "rates": gpu_rates.rates,
    "merging": gpu_merging.merging,
    "pressure": gpu_pressure.pressure,
    "peers": gpu_rates.peers,
}
PARTS = ("check", "kernels", "roofline", *MODELS)


def measured(parts: Sequence[str], device: CudaDevice, size: Size) -> Found:
    speed = gpu_kernels.bandwidth(device, size)
    rows = [Row("copy bandwidth, read and written", speed / 1e9, "GB/s")]
    claims: list[Claim] = []
    if "tune" in parts:
        rows += gpu_tune.tune(device, size)
        device = CudaDevice(device.place, device.dtype)  # as it is launched from now on
    if "kernels" in parts:
        rows += gpu_kernels.lora(device, size, speed)
        rows += gpu_kernels.attention(device, size, speed)
    for part in parts:
        if part in MODELS:
            more, others = MODELS[part](device, size, speed)
            rows += more
            claims += others
            torch.cuda.empty_cache()
    return rows, claims


def under_roof(device: CudaDevice, size: Size) -> tuple[Roof, list[Point]]:
    roof, points = gpu_roofline.roof(device, size), gpu_roofline.points(device, size)
    for point in points:
        reached = point.flops / point.seconds / roof.over(point.intensity)
        print(f"{point.kind}, {point.of}: {reached:.2f} of its roof", flush=True)
    return roof, points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.gpu")
    parser.add_argument("--parts", default=",".join(PARTS), help="a list; tune is one more")
    parser.add_argument("--dtype", default="bfloat16")
    asked = parser.parse_args()
    parts = asked.parts.split(",")
    if unknown := {*parts} - {*PARTS, "tune"}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    real = torch.cuda.is_available()
    dtype = getattr(torch, asked.dtype) if real else torch.float32
    device = CudaDevice(torch.device("cuda" if real else "cpu"), dtype)
    if "check" in parts:
        checked()
    size = FULL if real else SMALL
    rows, claims = measured(parts, device, size)
    roofs: dict[str, Sequence[Any]] = {}
    if "roofline" in parts:
        roof, points = under_roof(device, size)
        roofs = {"roof": [roof], "points": points}
    for row in rows:
        share = "" if row.share is None else f"{row.share:.2f}"
        print(f"{row.measured:80} {row.value:10.4g} {row.unit:8} {share}")
    for each in claims:
        print(f"{each.claim:80} {each.value:10.4g} (wanted {each.target})")
    if real:
        tables: dict[str, Sequence[Any]] = {"claims": claims, "rows": rows, **roofs}
        found = {name: [asdict(each) for each in table] for name, table in tables.items()}
        name = "gpu" if claims else f"gpu_{'_'.join(parts)}"
        save(name, {name: table for name, table in found.items() if table})


if __name__ == "__main__":
    main()
