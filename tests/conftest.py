"""Before anything imports Triton: without a GPU kernels, its own among them, are interpreted."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
