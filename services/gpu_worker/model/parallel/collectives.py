"""What the members of a group tell each other within a step, and how much that is."""

import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import cast

import torch.distributed as dist
from torch import Tensor

from services.gpu_worker.model.parallel.member import Member

PATIENCE = timedelta(minutes=30)  # with a member that hangs; the worker's watch is shorter


class Matter(Enum):
    """What a message is about."""

    BASE = "base"
    LORA = "lora"
    LOGITS = "logits"


@dataclass(slots=True)
class Traffic:
    """Bytes that a member sends if they go around a ring, and calls, by matter."""

    sent: Counter[Matter] = field(default_factory=Counter)
    calls: Counter[Matter] = field(default_factory=Counter)

    def count(self, matter: Matter, sent: int) -> None:
        self.sent[matter] += sent
        self.calls[matter] += 1

    def copy(self) -> "Traffic":
        """As it is now."""
        return Traffic(self.sent.copy(), self.calls.copy())


@dataclass(frozen=True, slots=True)
class Gathered:
    """What everybody had, once it is there."""

    work: dist.Work
    all: Tensor  # [members, elements]

    def wait(self) -> Tensor:
        self.work.wait()
        return self.all


class Collectives:
    """The engine's thread's, in every member alike, in the same order."""

    def __init__(self, member: Member, group: dist.ProcessGroup) -> None:
        self.member = member
        self.traffic = Traffic()
        self._group = group

    def sum(self, matter: Matter, x: Tensor) -> dist.Work:
        """Begins to make x the sum of everybody's, in place."""
        members = self.member.of
        self.traffic.count(matter, 2 * (members - 1) * x.nbytes // members)
        return self._group.allreduce([x])

    def gather(self, matter: Matter, x: Tensor) -> Gathered:
        """Begins to make everybody's x, which is as long for all, known to all."""
        self.traffic.count(matter, (self.member.of - 1) * x.nbytes)
        all_ = x.new_empty(self.member.of, x.numel())
        return Gathered(self._group._allgather_base(all_.view(-1), x), all_)

    def collect(self, matter: Matter, x: Tensor) -> list[Tensor]:
        """Everybody's x at the leader, nothing elsewhere."""
        leads = self.member.number == 0
        self.traffic.count(matter, 0 if leads else x.nbytes)
        options = dist.GatherOptions()
        options.rootRank = 0
        found = [x.new_empty(x.shape) for _ in range(self.member.of)] if leads else []
        self._group.gather([found] if leads else [], [x.contiguous()], options).wait()
        return found


def join(member: Member, meeting: Path, *, on_cuda: bool) -> Collectives:
    """Returns when all members have joined at `meeting`, a file that is not there yet."""
    if sys.platform == "linux":  # all members are here, and nobody else is to listen
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = dist.FileStore(str(meeting), member.of)  # type: ignore[attr-defined]  # it is public
    place = store, member.number, member.of
    if on_cuda:
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = PATIENCE
        backend: object = dist.ProcessGroupNCCL(*place, options)
    else:
        backend = dist.ProcessGroupGloo(*place, PATIENCE)
    return Collectives(member, cast(dist.ProcessGroup, backend))  # it has a group's operations
