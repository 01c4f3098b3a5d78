"""GPU_WORKER_* settings."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from services.gpu_worker.engine.limits import Limits
from services.runtime.settings import ServiceSettings


class GpuWorkerSettings(ServiceSettings, env_prefix="GPU_WORKER_"):
    address: str = "127.0.0.1:7414"
    advertise_address: str = ""
    """host:port where gateways reach this worker; the listening address if empty."""
    worker_id: str = ""
    """Unique in the fleet; made from the advertised address if empty."""
    store_address: str = "127.0.0.1:7412"
    scheduler_address: str = Field("127.0.0.1:7413", pattern=r"[^,\s]")
    """host:port; of several schedulers, by commas, the one that leads is found."""
    model_path: Path
    """A Hugging Face folder or a GGUF file."""
    model_name: str = ""
    """The name that requests use; what the model calls itself if empty."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA if torch finds it."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of weights, keys, values and adapters. auto: bfloat16 on CUDA; float32 on a CPU, always."""
    weights: Literal["float32", "int8", "int8-dynamic"] = "float32"
    """Of the base model; adapters, keys and values are not rounded. float32: as all else, so
    bfloat16 on CUDA. int8: a quarter of the memory (on CUDA half), and of what a step with few
    sequences reads. int8-dynamic, on a CPU alone, rounds the products' inputs too, token by token:
    faster, above all for long prompts, and less exact (bench.quantised measures it). All workers of
    a model should have the same."""
    memory_mebibytes: NonNegativeInt = 0
    """For keys, values and adapters together. 0: of what is free when the model is loaded, nine
    tenths on CUDA and two fifths on a CPU."""
    cuda_graphs: bool = True
    """Whether steps in which every sequence has one token are recorded on CUDA, and replayed with
    others' numbers: the host then launches one graph instead of hundreds of kernels. Each kind of
    step is recorded when it first comes, which takes it a fraction of a second. Not in a group."""
    cuda_graphs_mebibytes: PositiveInt = 1024
    """For what is recorded, beside all else. Kinds of steps that come when it is spent are run as
    without graphs."""
    host_cache_mebibytes: PositiveInt = 1024
    """For adapters in host memory, beside those on the device."""
    prefix_cache: bool = True
    """Whether the keys and values of a tenant's earlier requests are used again."""
    merging: Literal["off", "auto", "always"] = "off"
    """Whether the adapter that most requests want may be folded into the weights, of which there is
    a second set then; others run beside it. auto: while that was measured to be faster."""
    tensor_parallel: PositiveInt = 1
    """Processes that have a part of the model each, on CUDA on a device each. It divides the
    model's heads, those of keys too; memory and threads are of each process."""
    tensor_parallel_lora: Literal["sharded", "replicated", "block_diagonal"] = "sharded"
    """How adapters are dealt out: sharded exchanges what lies between A and B, replicated computes
    it several times, block_diagonal needs neither and takes only adapters that were trained so."""
    metrics_address: str = ""
    """host:port of Prometheus metrics. Empty: nowhere."""
    threads: NonNegativeInt = 0
    """CPU threads; 0 means one for each processor that the process may use, a group's processes
    sharing them. If they are as many, and the device is a CPU, each keeps to a processor."""
    hung_after_seconds: PositiveFloat = 60.0
    """A step that takes so long never ends: the process does, and what ran goes on elsewhere."""
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _goes_together(self) -> "GpuWorkerSettings":
        if self.merging != "off" and self.weights != "float32":
            raise ValueError(
                f"GPU_WORKER_MERGING={self.merging}: adapters cannot be merged into "
                f"{self.weights} weights, only into float32"
            )
        if self.tensor_parallel > 1 and self.merging != "off":
            raise ValueError(
                f"GPU_WORKER_MERGING={self.merging} folds adapters into whole weights, and "
                f"GPU_WORKER_TENSOR_PARALLEL={self.tensor_parallel} deals them out: leave one"
            )
        if self.tensor_parallel > 1 and self.weights != "float32":
            raise ValueError(f"a group deals out float32 weights, not {self.weights}")
        return self
