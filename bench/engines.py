"""Engines as they are measured: adapters resident, nothing between them and the clock."""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from bench.streams import Run, Timings
from bench.workload import Arrival
from services.adapter_store.canonical import CanonicalAdapter
from services.core.types import Digest, RequestId, SamplingParams
from services.gpu_worker.engine.engine import Engine
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.model.adapters import AdapterReader
from services.gpu_worker.model.build import build_engine
from services.gpu_worker.model.loading import LoadedModel
from services.gpu_worker.model.runner import TorchRunner
from services.gpu_worker.model.threads import engine_thread, keep_apart

GIBIBYTE = 1 << 30


def settled_thread(helpers: int = 0) -> ThreadPoolExecutor:
    """An engine's thread as a worker on a CPU has it."""
    thread = engine_thread(helpers)
    thread.submit(keep_apart).result()
    return thread


def drive(engine: Engine, arrivals: Sequence[Arrival], digests: Sequence[Digest]) -> Run:
    """Submit every request when it is due and step until all are done."""
    due = sorted(enumerate(arrivals), key=lambda pair: pair[1].at)
    timings = Timings()
    wanted = sum(arrival.output_tokens for arrival in arrivals)
    while timings.tokens < wanted:
        while due and due[0][1].at <= timings.now:
            index, arrival = due.pop(0)
            timings.begins(index)
            engine.submit(engine_request(index, arrival, digests))
        report = engine.step(timings.now)
        for request_id, piece in report.pieces:
            timings.came(int(request_id), len(piece.tokens))
        if report.is_idle and due:
            time.sleep(max(0.0, due[0][1].at - timings.now))
    return timings.run(arrivals)


def engine_request(index: int, arrival: Arrival, digests: Sequence[Digest]) -> EngineRequest:
    sampling = SamplingParams(max_tokens=arrival.output_tokens, temperature=0.0, ignore_eos=True)
    adapter = None if arrival.adapter is None else digests[arrival.adapter]
    return EngineRequest(RequestId(str(index)), arrival.prompt, sampling, adapter)


def prepare(
    model: LoadedModel,
    adapters: Iterable[CanonicalAdapter],
    runner: type[TorchRunner] = TorchRunner,
    memory_bytes: int = 6 * GIBIBYTE,
) -> tuple[Engine, list[Digest]]:
    """An engine with these adapters resident."""
    engine = build_engine(
        model,
        memory_bytes=memory_bytes,
        limits=Limits(max_sequences=64),
        keeps_prefixes=False,
        runner=runner,
    )
    reader = AdapterReader(model, page_tokens=Limits().page_tokens)
    return engine, made_resident(engine, reader, adapters)


def made_resident(
    engine: Engine, reader: AdapterReader, adapters: Iterable[CanonicalAdapter]
) -> list[Digest]:
    digests = []
    for adapter in adapters:
        weights = reader.read(map(bytes, adapter.pieces()), adapter.digest)
        fill = engine.reserve(adapter.digest, weights)
        assert fill is not None
        fill()
        engine.activate(adapter.digest)
        digests.append(adapter.digest)
    return digests
