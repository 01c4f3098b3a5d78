"""tl.dot that means the same where kernels are interpreted."""

import os

import triton
import triton.language as tl

# Triton's interpreter (3.6, 3.9) multiplies the bits of bfloat16 as if they were integers. Widened
# to fp32 the products are the same that tensor cores add up.
WIDENS = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def dot(a, b):
    """[M, K] times [K, N] in full precision: fp32 sums, no TF32."""
    if WIDENS:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")
