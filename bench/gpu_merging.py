"""One adapter in the weights on a GPU: from what share of the requests on it is faster.

Merged: all requests are its own. Mixed: the others have what it adds taken away, and their own
added. Unmerged: nothing is in the weights.
"""

from collections.abc import Sequence
from dataclasses import replace

from bench.gpu_engines import Rig, made_rig
from bench.gpu_model import PAGE, Found, Row, Size, made_model, random_packing
from services.core.types import Digest
from services.gpu_worker.kernels.cuda.device import CudaDevice
from services.gpu_worker.model.arena import page_elements
from services.policies.merging.batches import Batch, Queued, Ran

SHARES = (0.25, 0.5, 0.75, 0.9, 1.0)  # of the requests, that are for the one adapter
RANK = 16


class Told:
    """Everybody runs, with what the bench wants in the weights."""

    ratio: float | None = None
    wanted: Digest | None = None

    def choose(self, queued: Sequence[Queued]) -> Batch:
        return Batch(tuple(queued), self.wanted)

    def ran(self, ran: Ran) -> None:
        """Nothing is to be learnt."""


def merging(device: CudaDevice, size: Size, _: float) -> Found:
    others = size.adapters[1]
    packing = random_packing(size.config, RANK, page_elements(size.config, PAGE))
    packing = replace(packing, image=device.stage(packing.image))
    policy = Told()
    network = made_model(size.config, device)
    rig = made_rig(network, size, [packing] * (1 + others), merging=policy)
    if rig is None:
        print("two sets of weights do not fit", flush=True)
        return [], []
    rows = []
    for share in SHARES:
        crowd = _crowd(rig.digests, size.batch, share)
        policy.wanted = None
        unmerged = rig.decode_seconds(crowd)
        policy.wanted = rig.digests[0]
        folded = _folded_seconds(rig, crowd)
        name = f"decode step of {size.batch}, {share:.0%} for one of {1 + others} adapters"
        rows.append(Row(f"{name}: unmerged", unmerged * 1e3, "ms"))
        rows.append(Row(f"{name}: in the weights over unmerged", folded / unmerged, "x"))
    return rows, []


def _folded_seconds(rig: Rig, crowd: Sequence[Digest | None]) -> float:
    """Folding takes some steps, of a request that does not count."""
    assert rig.engine.merging is not None
    name = rig.submit(crowd[0], rig.size.prompt, rig.size.outputs + 64)
    while rig.engine.merging.state.adapter is None:
        assert rig.engine.step().sequences
    rig.engine.cancel(name)
    return rig.decode_seconds(crowd)


def _crowd(digests: Sequence[Digest], count: int, share: float) -> Sequence[Digest | None]:
    own = round(count * share)
    others = digests[1:]
    return [digests[0]] * own + [others[i % len(others)] for i in range(count - own)]
