"""How a member loads its part of a model."""

from functools import partial

from services.gpu_worker.model.arena import page_elements
from services.gpu_worker.model.loading import Build, LoadedModel
from services.gpu_worker.model.parallel.collectives import Collectives
from services.gpu_worker.model.parallel.factors import GroupUnpacker
from services.gpu_worker.model.parallel.member import Partition
from services.gpu_worker.model.parallel.network import build_part


def builder(collectives: Collectives, partition: Partition) -> Build:
    """For load_model."""
    return partial(build_part, collectives=collectives, partition=partition)


def unpacker(
    model: LoadedModel, *, page_tokens: int, members: int, partition: Partition
) -> GroupUnpacker:
    """`model` is the part of any member."""
    config = model.network.config
    return GroupUnpacker(
        model.card.fingerprint,
        {module.site: module.out_features for module in config.modules()},
        page_elements(config, page_tokens),
        members,
        partition,
    )
