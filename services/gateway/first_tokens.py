"""How long first tokens take, by tier of service: what its promise is held against."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, Histogram

from services.gateway.course import Course

SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 60)


class FirstTokens:
    """A Bookkeeper. Of requests that had one; those that were refused are counted as too late."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "lorikeet_first_token_seconds",
            "From when a request was accepted to its first token.",
            labelnames=["base_model", "tier"],
            buckets=SECONDS,
            registry=registry,
        )

    @asynccontextmanager
    async def keep(self, course: Course) -> AsyncIterator[None]:
        try:
            yield
        finally:
            if course.first_token is not None:
                completion = course.completion
                labels = completion.job.base_model, completion.tier.value
                self._seconds.labels(*labels).observe(course.first_token - course.accepted)
