"""Workers that serve the real model over real gRPC, and a gateway that streams from them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from services.core.types import Destination, TenantId, WorkerId
from services.gateway.base_models import ServedModel
from services.gateway.course import Completion, Job, TextPiece
from services.gateway.fair_queue import FairQueue
from services.gateway.gateway import Gateway
from services.gateway.worker_room import WorkerIdentity
from services.gateway.workers import Workers
from services.policies.fairness.vtc import VirtualTokenCounters
from services.runtime.beside import beside
from tests.serving import TOKEN, Serving, a_worker


@dataclass(slots=True)
class Crew:
    fleet: list[Serving]
    workers: Workers
    gateway: Gateway
    policy: VirtualTokenCounters

    def job(self, name: str, tokens: int, **more: Any) -> Job:
        return self.fleet[0].job(name, tokens, **more)

    async def stream(self, job: Job) -> AsyncIterator[TextPiece]:
        card = self.fleet[0].model.card
        base = ServedModel(card, Tokenizer.from_str(card.tokenizer_json.decode()))
        async for piece in self.gateway.stream(
            Completion(TenantId("t"), None, "m", base, job), seconds=60
        ):
            yield piece

    @property
    def charged(self) -> float:
        return self.policy._highest.of("t")

    def holder(self) -> tuple[Serving, Serving]:
        """The one that has a request, and another."""
        (held,) = [each for each in self.fleet if each.worker._owners]
        return held, next(each for each in self.fleet if each is not held)

    def at(self, serving: Serving) -> Destination:
        return Destination(WorkerId(f"w{self.fleet.index(serving)}"), serving.address)

    def name(self, *servings: Serving) -> None:
        """Only these take requests."""
        card = self.fleet[0].model.card
        self.workers.name(
            WorkerIdentity(self.at(each).worker, each.address, card.name, card.fingerprint)
            for each in servings
        )


@asynccontextmanager
async def a_crew(count: int = 2, *, keeps_prefixes: bool = False) -> AsyncIterator[Crew]:
    unused: Any = None
    async with AsyncExitStack() as stack:
        fleet = [
            await stack.enter_async_context(a_worker(keeps_prefixes=keeps_prefixes))
            for _ in range(count)
        ]
        workers, policy = Workers(TOKEN), VirtualTokenCounters()
        stack.push_async_callback(workers.close)
        queue = FairQueue(workers, lambda _: policy)
        workers.changed = queue.dispatch
        gateway = Gateway(base_models=unused, store=unused, queue=queue, prompts=unused)
        crew = Crew(fleet, workers, gateway, policy)
        crew.name(*fleet)
        await stack.enter_async_context(beside(workers.redial(), queue.run()))
        yield crew
