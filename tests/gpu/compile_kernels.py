"""Compiles every Triton kernel for a GPU that need not be here: python compile_kernels.py DTYPE...

Run by test_compile.py in a process of its own, because kernels are interpreted in the tests'.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from services.gpu_worker.kernels.cuda import attention, lora, quantised
from services.gpu_worker.kernels.cuda.config import DEFAULT, FOLDER, Launch, read_config

POINTERS = {
    "chunks": "*i64",
    "tables": "*i32",
    "h": "*fp32",
    "partial": "*fp32",
    "weights": "*fp32",
}
POINTERS |= {"numbers": "*i8", "scales": "*fp32"}
POINTERS |= dict.fromkeys(("rows", "starts", "ends", "sequences", "blocks"), "*i64")
NUMBERS = {"site", "x_stride", "y_stride", "h_part", "h_row", "q_row", "out_row", "page_stride"}
NUMBERS |= {"table_row", "splits", "window", "count", "parts"}
UNALIGNED = {"site", "splits", "table_row", "window", "count", "parts"}
LLAMA: dict[str, Any] = {"KV_HEADS": 8, "GROUP": 4, "HEADS": 32, "HEAD": 128, "PAGE": 16}
SMOLLM: dict[str, Any] = {"KV_HEADS": 3, "GROUP": 3, "HEADS": 9, "HEAD": 64, "PAGE": 16}
CONFIG = read_config(FOLDER / f"{DEFAULT}.json")
HIDDEN = {"SITES": 128, "INPUTS": 4096, "STEPS": 4, "PARTS": CONFIG.parts}
HIDDEN |= {"DEPTH": CONFIG.shrink.block, "WIDTH": CONFIG.expand.block}
MULTIPLY = {"OUTPUTS": 4096, "INPUTS": 4096, "HAS_BIAS": False, "WIDTH": quantised.WIDTH}
MULTIPLY |= {"DEPTH": CONFIG.multiply.block, "IS_SPLIT": True, "STEPS": 4}
ADD_UP = Launch(16, 4, 3)
ATTENTION = {
    "decode_split": CONFIG.decode,
    "decode_join": Launch(16, 4, 3),
    "prefill": CONFIG.prefill,
}
BLOCKS = {"GROUP_BLOCK": 16, "SPLIT": CONFIG.split, "QUERIES": CONFIG.queries}


def compiled(kernel: Any, dtype: str, launch: Launch, **constants: Any) -> Any:
    signature, used = {}, {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name], used[name] = "constexpr", constants[name]
        elif name in POINTERS:
            signature[name] = POINTERS[name]
        elif name in NUMBERS:
            signature[name] = "i32"
        else:
            signature[name] = "fp32" if name == "scale" else f"*{dtype}"
    # As at run time: torch's memory is aligned, and so are the strides of real models.
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, kind in enumerate(signature.values())
        if kind.startswith("*") or (kind == "i32" and list(signature)[index] not in UNALIGNED)
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=used, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=launch.options)


def main() -> None:
    for dtype in sys.argv[1:]:
        for height in (16, 64):
            how = HIDDEN | {"HEIGHT": height, "ALIGN": lora.ALIGNED}
            for kernel, launch in ((lora.shrink, CONFIG.shrink), (lora.expand, CONFIG.expand)):
                made = compiled(kernel, dtype, launch, **how)
                report(f"{kernel.__name__}/{height}_rows", dtype, launch, made)
        for height in (16, 64):
            how = MULTIPLY | {"HEIGHT": height}
            made = compiled(quantised.multiply, dtype, CONFIG.multiply, **how)
            report(f"multiply/{height}_rows", dtype, CONFIG.multiply, made)
        made = compiled(quantised.add_up, dtype, ADD_UP, **MULTIPLY | {"WIDTH": 1024})
        report("add_up/llama_8b", dtype, ADD_UP, made)
        for model, shape in {"llama_8b": LLAMA, "smollm2": SMOLLM}.items():
            how = shape | BLOCKS | {"HEAD_BLOCK": shape["HEAD"]}
            for name, launch in ATTENTION.items():
                kernel = getattr(attention, name)
                made = compiled(kernel, dtype, launch, **how, KEYS=launch.block)
                report(f"{name}/{model}", dtype, launch, made)


def report(name: str, dtype: str, launch: Launch, made: Any) -> None:
    """A line for the test and for bench.resources. Narrow loads are of two bytes at most: weights
    must not come so. The stack is where registers are spilt to."""
    narrow = len(re.findall(r"ld\.global\.b(8|16)\b", made.asm["ptx"]))
    used = {"warps": launch.warps, "shared": made.metadata.shared, "narrow": narrow}
    used |= _of_machine_code(made.asm["cubin"])
    print(name, dtype, *(f"{what}={count}" for what, count in used.items()))


def _of_machine_code(cubin: bytes) -> dict[str, int]:
    """Of a thread: registers, and bytes of stack."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"\b(REG|STACK):(\d+)", told))
    return {"registers": int(found["REG"]), "stack": int(found["STACK"])}


if __name__ == "__main__":
    main()
