"""Before anything imports Triton: without a GPU kernels, its own among them, are interpreted."""

import os
import signal

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# A shell starts what it puts into the background with Ctrl-C ignored, and so would be its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
