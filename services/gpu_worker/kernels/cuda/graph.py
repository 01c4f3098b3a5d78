"""Work recorded as a CUDA graph; where there is no CUDA, a replay is the work itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from services.gpu_worker.kernels.cuda.banks import Shape, own
from services.gpu_worker.kernels.cuda.beside import Beside
from services.gpu_worker.kernels.cuda.config import Config
from services.gpu_worker.kernels.cuda.deltas import shape_of
from services.gpu_worker.kernels.cuda.fixed import FixedInputs
from services.gpu_worker.kernels.device import Segment


@dataclass(frozen=True, slots=True)
class Graph:
    """See graphs.Graph."""

    replay: Callable[[], Tensor]
    size_bytes: int


class Recorder:
    """See graphs.Recorder. Its graphs never run at once, so they share what they compute in."""

    def __init__(
        self,
        memory: Tensor,
        config: Config,
        beside: Beside,
        *,
        page_tokens: int,
        window: int | None,
    ) -> None:
        self._memory = memory
        self._config = config
        self._beside = beside
        self._page_tokens = page_tokens
        self._window = window
        self._shape = Shape()
        self._sites = 0
        self._place = memory.device
        self._stream = torch.cuda.Stream(self._place) if self._place.type == "cuda" else None
        self._pool = None if self._stream is None else torch.cuda.graph_pool_handle()

    def grows(self, segments: Sequence[Segment]) -> bool:
        shape = self._shape.joined([shape_of(segments)])
        if shape == self._shape:
            return False
        self._shape, self._sites = shape, len(own(segments[0].bank).pieces)
        if self._stream is not None:  # memory that all graphs of have gone cannot be had again
            self._pool = torch.cuda.graph_pool_handle()
        return True

    def inputs(self, rows: int, tokens: int, *, adapts: bool) -> FixedInputs:
        made = FixedInputs(
            rows,
            tokens,
            self._memory,
            self._config,
            self._beside,
            page_tokens=self._page_tokens,
            window=self._window,
        )
        if adapts and self._shape.tiles:
            made.take_adapters(self._shape, self._sites)
        return made

    def record(self, work: Callable[[], Tensor]) -> Graph:
        if self._stream is None:
            return Graph(work, 0)
        self._stream.wait_stream(torch.cuda.current_stream(self._place))
        with torch.cuda.stream(self._stream):
            work()  # compiles kernels and makes workspaces, which cannot be recorded
        torch.cuda.synchronize(self._place)
        torch.cuda.empty_cache()
        before, _ = torch.cuda.mem_get_info(self._place)
        graph = torch.cuda.CUDAGraph()
        # Threads that copy adapters meanwhile allocate and wait: that is not of the graph.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            out = work()
        after, _ = torch.cuda.mem_get_info(self._place)

        def replay() -> Tensor:
            graph.replay()
            return out

        return Graph(replay, max(0, before - after))
