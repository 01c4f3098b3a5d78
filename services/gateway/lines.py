"""The lines to the workers of a base model, and the best of them for a request, without a look at
each."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, KeysView
from dataclasses import replace

from services.core.types import Digest, Fingerprint, WorkerId
from services.gateway.course import Job
from services.gateway.line import Line
from services.policies.placement.cost import fetch_ms
from services.policies.placement.index import Index
from services.policies.placement.ranking import Ranking
from services.policies.placement.views import Wish

FEW = 64  # with enough free tokens, each of which is looked at
NONE: frozenset[Digest] = frozenset()


class Lines:
    """Of those that take requests now. Whoever has them says so when one is another: until then
    it is taken to be as it was."""

    def __init__(self, count: Callable[[Digest], int] = lambda _: 1) -> None:
        """`count`: of homes that an adapter has."""
        self._index = Index(count)
        self._lines: dict[WorkerId, Line] = {}
        self._roomy = Ranking()  # those with room, by the tokens that are free, the most first
        self._shares = Ranking()  # of those, by what is expected of outputs
        self._pools: dict[WorkerId, int] = {}  # tokens
        self._pool_tokens = 0
        self._known = _Census()
        self._ready = _Census()

    def __iter__(self) -> Iterator[Line]:
        return iter(self._lines.values())

    def __len__(self) -> int:
        return len(self._lines)

    def get(self, worker: WorkerId) -> Line | None:
        return self._lines.get(worker)

    @property
    def has_room(self) -> bool:
        return bool(self._roomy)

    @property
    def pool_tokens(self) -> int:
        """That they can hold together."""
        return self._pool_tokens

    @property
    def known(self) -> KeysView[Digest]:
        """Adapters that somebody has."""
        return self._known.counts.keys()

    @property
    def ready(self) -> KeysView[Digest]:
        """Adapters that somebody with room has."""
        return self._ready.counts.keys()

    def homes(self, base: Fingerprint, adapter: Digest) -> frozenset[WorkerId]:
        """Who should have it."""
        return frozenset(self._index.homes(base, adapter))

    def put(self, line: Line) -> None:
        """It is like this now. One that has ended takes nothing, and is at home where it was: it
        will be opened anew."""
        view, worker = line.view, line.view.id
        if line.has_ended:
            view = replace(view, resident=NONE, is_full=True)
            self._lines.pop(worker, None)
        else:
            self._lines[worker] = line
        self._count_pool(worker, 0 if line.has_ended else line.pool_tokens)
        self._index.update(view)
        self._known.has(worker, view.resident)
        self._ready.has(worker, NONE if view.is_full else view.resident)
        if view.is_full:
            self._roomy.drop(worker)
            self._shares.drop(worker)
        else:
            self._roomy.put(worker, -line.free_tokens)
            self._shares.put(worker, line.output_share)

    def drop(self, worker: WorkerId) -> None:
        """It takes requests no more; if it is not there it is no error."""
        self._index.remove(worker)
        self._lines.pop(worker, None)
        self._count_pool(worker, 0)
        self._roomy.drop(worker)
        self._shares.drop(worker)
        self._known.has(worker, NONE)
        self._ready.has(worker, NONE)

    def place(
        self, job: Job, urgency: float = 1.0, able: Callable[[Line], bool] | None = None
    ) -> Line | None:
        """The cheapest of those that it fits. `urgency`: see placement.views.Wish. `able`: which of
        them may run it, None: all."""
        roomy = self._with_tokens(job)
        among = None if len(roomy) > FEW else frozenset(roomy)
        if not roomy:
            return None

        def may(worker: WorkerId) -> bool:
            if among is not None and worker not in among:
                return False
            line = self._lines.get(worker)
            return line is not None and line.fits(job) and (able is None or able(line))

        return self._chosen(
            self._index.place(replace(_wish(job), urgency=urgency, needs_room=True), may)
        )

    def nearest(self, job: Job) -> Line | None:
        """The cheapest, with room or without."""
        return self._chosen(self._index.place(_wish(job), self._lines.__contains__))

    def _count_pool(self, worker: WorkerId, tokens: int) -> None:
        self._pool_tokens += tokens - self._pools.pop(worker, 0)
        if tokens:
            self._pools[worker] = tokens

    def _with_tokens(self, job: Job) -> list[WorkerId]:
        """Up to one more than FEW of those with room that may have enough of them."""
        share = next((self._shares.key(worker) for worker in self._shares), None) or 0.0
        least = len(job.prompt) + math.ceil(job.sampling.max_tokens * share)
        return self._roomy.up_to(-least, FEW + 1)

    def _chosen(self, worker: WorkerId | None) -> Line | None:
        return None if worker is None else self._lines[worker]


class _Census:
    """How many have each adapter."""

    def __init__(self) -> None:
        self.counts: Counter[Digest] = Counter()
        self._had: dict[WorkerId, frozenset[Digest]] = {}

    def has(self, worker: WorkerId, adapters: frozenset[Digest]) -> None:
        """These, and no others."""
        before = self._had.pop(worker, NONE)
        if adapters:
            self._had[worker] = adapters
        if adapters is before:
            return
        self.counts.update(adapters - before)
        for adapter in before - adapters:
            self.counts[adapter] -= 1
            if not self.counts[adapter]:
                del self.counts[adapter]


def _wish(job: Job) -> Wish:
    return Wish(
        base_model=job.base_model,
        base_fingerprint=job.base_fingerprint,
        adapter=job.adapter,
        prompt_tokens=len(job.prompt) + len(job.delivered),
        output_tokens=job.sampling.max_tokens - len(job.delivered),
        rank=job.adapter_rank,
        fetch_ms=fetch_ms(job.adapter_bytes),
        adapter_bytes=job.adapter_bytes,
    )
