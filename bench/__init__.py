"""Measurements of the suite and of its peers."""

import services.gpu_worker  # noqa: F401  # before torch: engines here wait as a worker's do
