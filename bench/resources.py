"""What each Triton kernel takes of a GPU, by its machine code: python -m bench.resources

Compiled ahead of time for sm_90, which needs no GPU and says nothing of speed. A stack is where
registers are spilt to; blocks are those that a multiprocessor of Hopper holds at once.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.results import save

ROOT = Path(__file__).parent.parent
# Of a multiprocessor of compute capability 9.0 (CUDA C++ Programming Guide, technical
# specifications). A warp's registers are given out by 256, a block has a KiB of its own.
WARPS, BLOCKS, REGISTERS, SHARED = 64, 32, 65_536, 228 * 1024
LANES, UNIT, OWN = 32, 256, 1024


@dataclass(frozen=True, slots=True)
class Row:
    kernel: str
    dtype: str
    warps: int
    registers: int
    stack: int
    shared: int
    blocks: int


def read(line: str) -> Row:
    """Of compile_kernels.py."""
    kernel, dtype, *numbers = line.split()
    used = {what: int(count) for what, count in (number.split("=") for number in numbers)}
    warps, registers, shared = used["warps"], used["registers"], used["shared"]
    by_registers = REGISTERS // (-(-registers * LANES // UNIT) * UNIT * warps)
    blocks = min(BLOCKS, WARPS // warps, by_registers, SHARED // (shared + OWN))
    return Row(kernel, dtype, warps, registers, used["stack"], shared, blocks)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, prog="python -m bench.resources").parse_args()
    ours = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "gpu" / "compile_kernels.py"), "bf16", "fp32"],
        env=ours | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    rows = [read(line) for line in done.stdout.splitlines()]
    for row in rows:
        print(f"{row.kernel:24} {row.dtype} {row.registers:4} registers, {row.stack:5} bytes spilt,"
              f" {row.shared:7} shared, {row.blocks} blocks")  # fmt: skip
    save("resources", {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
