"""What a step takes, and what adapters add to it: none, one, many; with graphs and without."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from bench.gpu_engines import GRAPH_BYTES, in_turn, made_rig
from bench.gpu_model import PAGE, Claim, Found, Row, Size, claim, made_model, random_packing
from services.gpu_worker.kernels.cuda.device import CudaDevice
from services.gpu_worker.model.arena import page_elements
from services.gpu_worker.model.config import ModelConfig
from services.gpu_worker.model.llama import Llama
from services.gpu_worker.model.packing import Packing

RANK = 16
GRAPHS, LAUNCHED, BESIDE = "graphs", "no graphs", "graphs, two streams"

Taken = dict[tuple[str, int], float]
"""Seconds of a step, by how it ran and with how many adapters."""


def steps(device: CudaDevice, size: Size, speed: float) -> Found:
    """Adapters of rank 16. `speed`: the memory's, bytes a second."""
    network = made_model(size.config, device)
    packing = random_packing(size.config, RANK, page_elements(size.config, PAGE))
    packing = replace(packing, image=device.stage(packing.image))
    memory = Memory(speed, device.dtype.itemsize)
    rows, claims = _decodes(network, size, packing, memory, _with_two_streams(network, device))
    more, others = _prefills(network, size, packing)
    return rows + more + _rounded(network, device, size, packing), claims + others


@dataclass(frozen=True, slots=True)
class Memory:
    """`speed`: bytes a second, as a copy has it."""

    speed: float
    itemsize: int

    def share(self, size: Size, adapters: int, seconds: float) -> float:
        """Of its speed, that a decode step makes use of."""
        return step_bytes(size, adapters, itemsize=self.itemsize) / seconds / self.speed


def _rounded(network: Llama, device: CudaDevice, size: Size, packing: Packing) -> list[Row]:
    """With base weights of eight bits, over those that nobody rounded."""
    other = CudaDevice(device.place, device.dtype, device.config, weights="int8")
    networks = (network, made_model(size.config, other))
    rows = []
    for count in (0, size.adapters[1]):
        rigs = [made_rig(each, size, [packing] * count) for each in networks]
        taken = [rig.decode_seconds(in_turn(rig.digests, size.batch)) for rig in rigs if rig]
        if len(taken) == len(rigs):
            name = f"decode step of {size.batch}: int8 weights, {count} adapters, over as they are"
            rows.append(Row(name, taken[1] / taken[0], "x"))
        del rigs
        torch.cuda.empty_cache()
    return rows


def _with_two_streams(network: Llama, device: CudaDevice) -> Llama:
    config = replace(device.config, beside=True)
    return replace(network, device=CudaDevice(device.place, device.dtype, config))


def _decodes(network: Llama, size: Size, packing: Packing, memory: Memory, beside: Llama) -> Found:
    ways = {
        GRAPHS: (network, GRAPH_BYTES),
        LAUNCHED: (network, 0),
        BESIDE: (beside, GRAPH_BYTES),
    }
    rows: list[Row] = []
    taken: Taken = {}
    for name, (made, graph_bytes) in ways.items():
        for count in (0, *size.adapters, size.many):
            rig = made_rig(made, size, [packing] * count, graph_bytes=graph_bytes)
            if rig is None:
                print(f"{count} adapters do not fit", flush=True)
                continue
            taken[name, count] = rig.decode_seconds(in_turn(rig.digests, size.batch))
            share = memory.share(size, min(count, size.batch), taken[name, count])
            rows.append(_row(f"{name}, {count} adapters", taken[name, count], size, share))
            if (name, count) == (GRAPHS, size.adapters[-1]):
                taken["unused", 0] = rig.decode_seconds([None] * size.batch)
                rows.append(_row(f"{name}, adapters unused", taken["unused", 0], size))
            del rig
            torch.cuda.empty_cache()
    return rows + _ratios(taken, size), _claims(taken, size, memory)


def _row(name: str, seconds: float, size: Size, share: float | None = None) -> Row:
    return Row(f"decode step of {size.batch}: {name}", seconds * 1e3, "ms", share)


def step_bytes(size: Size, adapters: int, *, itemsize: int) -> float:
    """That a decode step has to read: weights, keys and values, so many adapters."""
    config = size.config
    linears = sum(module.in_features * module.out_features for module in config.modules())
    weights = linears + config.vocabulary * config.hidden
    seen = size.batch * (size.prompt + size.steps // 2)
    cached = seen * 2 * config.layers * config.kv_width
    return (weights + cached + adapters * adapter_elements(config)) * itemsize


def adapter_elements(config: ModelConfig) -> int:
    return sum(RANK * (module.in_features + module.out_features) for module in config.modules())


def _ratios(taken: Taken, size: Size) -> list[Row]:
    none, one, many = 0, 1, size.many
    pairs = {
        "1 adapter over none": ((GRAPHS, one), (GRAPHS, none)),
        f"{many} adapters over 1": ((GRAPHS, many), (GRAPHS, one)),
        "no graphs over graphs, no adapters": ((LAUNCHED, none), (GRAPHS, none)),
        "no graphs over graphs, 1 adapter": ((LAUNCHED, one), (GRAPHS, one)),
        "two streams over one, 1 adapter": ((BESIDE, one), (GRAPHS, one)),
    }
    return [
        Row(f"decode step of {size.batch}: {name}", taken[this] / taken[that], "x")
        for name, (this, that) in pairs.items()
        if this in taken and that in taken
    ]


def _claims(taken: Taken, size: Size, memory: Memory) -> list[Claim]:
    some, plain = size.adapters[1], taken[GRAPHS, 0]
    best = min(taken[way, some] for way in (GRAPHS, BESIDE))
    name = f"decode step of {size.batch}"
    claims = [
        claim(f"{name}, adapters unused over none", taken["unused", 0], plain, "<= 1.00"),
        claim(f"{name}, {some} distinct of rank {RANK} over none", best, plain, "<= 1.10"),
    ]
    for count, seconds in ((0, plain), (some, best)):
        read = step_bytes(size, count, itemsize=memory.itemsize) / seconds
        what = f"{name}, {count} adapters: bytes a second over the memory's"
        claims.append(claim(what, read, memory.speed, ">= 0.60"))
    return claims


def _prefills(network: Llama, size: Size, packing: Packing) -> Found:
    some = size.adapters[1]
    rig = made_rig(network, size, [packing] * some)
    assert rig is not None
    crowds: dict[str, Sequence[int]] = {"none": (), "1": (0,), f"{some}": range(some)}
    taken = {
        name: rig.prefill_seconds(in_turn([rig.digests[i] for i in chosen], some))
        for name, chosen in crowds.items()
    }
    name = f"step of prompts, {size.prefill} tokens of {some} requests"
    rows = [
        Row(f"{name}, {count} adapters", seconds * 1e3, "ms") for count, seconds in taken.items()
    ]
    claims = [
        claim(f"{name}, {count} adapters over none", taken[count], taken["none"], "<= 1.15")
        for count in list(taken)[1:]
    ]
    return rows, claims
