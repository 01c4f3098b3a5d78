"""Limits around a request: reserved before it runs, settled when it has ended."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from services.core.errors import QuotaExceeded, RateLimited
from services.core.types import RequestId
from services.gateway.course import Completion, Course
from services.gateway.reservations import Reservation, Reservations, Settlement
from services.policies.quotas import BUDGETS, Amount, Decision, Rate, Refusal, Standing


@dataclass(slots=True)
class _Party:
    """The choices of one request: let in together or not at all, settled when the last ends."""

    reservation: Reservation
    decided: "asyncio.Future[Decision | None]"
    inside: int = 0
    failed: bool = False
    let_in: list[Course] = field(default_factory=list)

    @property
    def held(self) -> bool:
        if not self.decided.done() or self.decided.exception() is not None:
            return False
        decision = self.decided.result()
        return decision is not None and decision.refusal is None

    def spent(self) -> Amount:
        requests = tokens = 0
        for course in self.let_in:
            if course.completion_tokens or not self.failed:
                requests += 1
                tokens += len(course.completion.job.prompt) + course.completion_tokens
        return Amount(requests, tokens)


class Quotas:
    """A Bookkeeper. Each choice of a request reserves its prompt, max_tokens, and one request.

    Settled is what was read and delivered. A request that is refused counts for nothing; one that
    its client gave up before it was let in neither, and none that the system failed before its
    first token (an error of ours, a deadline); one that its client gave up later counts as a
    request with its prompt and what it got until then.
    """

    def __init__(self, reservations: Reservations) -> None:
        self._reservations = reservations
        self._parties: dict[RequestId, _Party] = {}

    def keep(self, course: Course) -> AbstractAsyncContextManager[None]:
        return self._kept(course)

    @asynccontextmanager
    async def _kept(self, course: Course) -> AsyncIterator[None]:
        completion = course.completion
        if self._reservations.unlimited(completion.tenant):
            yield
            return
        name = completion.party or completion.job.request_id
        party = self._parties.get(name) or self._begin(name, completion)
        party.inside += 1
        try:
            _admit(await asyncio.shield(party.decided), completion)
            party.let_in.append(course)
            yield
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException:
            party.failed = True
            raise
        finally:
            party.inside -= 1
            if not party.inside:
                del self._parties[name]
                await self._end(party)

    def _begin(self, name: RequestId, completion: Completion) -> _Party:
        job = completion.job
        tokens = len(job.prompt) + job.sampling.max_tokens
        ask = Amount(completion.choices, completion.choices * tokens)
        reservation = Reservation(uuid.uuid4().hex, completion.tenant, completion.key, ask)
        party = _Party(reservation, self._reservations.reserve(reservation))
        self._parties[name] = party
        return party

    async def _end(self, party: _Party) -> None:
        def settle(_: object) -> "asyncio.Future[None] | None":
            if not party.held:
                return None
            return self._reservations.settle(Settlement(party.reservation, party.spent()))

        if not party.decided.done():  # all have gone before they were let in
            party.decided.add_done_callback(settle)
        elif (settled := settle(None)) is not None:
            await asyncio.shield(settled)


def _admit(decision: Decision | None, completion: Completion) -> None:
    """Raises RateLimited."""
    if decision is None:
        return
    completion.told.update(rate_headers(decision.standing))
    if decision.refusal is not None:
        raise _error(decision.refusal, completion)


def _error(refusal: Refusal, completion: Completion) -> RateLimited:
    kind = QuotaExceeded if refusal.limit in BUDGETS else RateLimited
    subject = f"key:{refusal.key}" if refusal.key else f"tenant:{completion.tenant}"
    tokens = len(completion.job.prompt) + completion.job.sampling.max_tokens
    asked = f"{completion.choices} x {tokens} tokens (prompt and max_tokens)"
    limit = f"the limit of {refusal.limit.replace('_', ' ')}"
    if refusal.seconds is None:
        text = f"{asked} can no longer fit into {limit}, however long you wait"
    else:
        text = f"{limit} has no room for {asked}; try again in {refusal.seconds} s"
    return kind(text, refusal.limit, subject, refusal.seconds)


def rate_headers(standing: Standing) -> dict[str, str]:
    """As OpenAI has them."""
    headers: dict[str, str] = {}
    for unit, rate in (("requests", standing.requests), ("tokens", standing.tokens)):
        if rate is not None:
            headers |= _rate_headers(unit, rate)
    return headers


def _rate_headers(unit: str, rate: Rate) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{unit}": str(rate.limit),
        f"x-ratelimit-remaining-{unit}": str(rate.left),
        f"x-ratelimit-reset-{unit}": f"{rate.reset}s",
    }
