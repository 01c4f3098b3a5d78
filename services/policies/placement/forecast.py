"""How many requests an adapter will get next: three ways to say, and the one that was right so far.

`ema`: as of late. `trend`: as of late, and on as it has been going (Holt). `seasonal`: as of late,
and what came on top of it, or went, at this time of the last period.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from services.core.types import Digest

METHODS = ("ema", "trend", "seasonal")


@dataclass(frozen=True, slots=True)
class Season:
    """`bucket_seconds`: what is foretold at a time; `buckets`: of a period, after which things are
    expected to happen again. The other three: how fast averages, trends and errors follow."""

    bucket_seconds: float = 300.0
    buckets: int = 24 * 12
    level_rate: float = 0.3
    trend_rate: float = 0.1
    error_rate: float = 0.1
    remembered: int = 100_000  # adapters

    def __post_init__(self) -> None:
        if self.bucket_seconds <= 0 or self.buckets < 3 or self.remembered < 1:
            raise ValueError("a period has at least 3 buckets, and each takes some time")


@dataclass(slots=True)
class Course:
    """Of an adapter: what came in each bucket of the last period, and what was thought of it."""

    bucket: int
    counts: "array[int]"
    count: int = 0  # in the bucket that has not ended
    ended: int = 0
    level: float = 0.0
    smooth: float = 0.0
    trend: float = 0.0
    foretold: list[float] = field(default_factory=lambda: [0.0] * len(METHODS))
    errors: list[float] = field(default_factory=lambda: [0.0] * len(METHODS))

    def best(self, season: Season) -> float:
        """Of the next bucket; by the plain average until a whole period was seen."""
        if self.ended <= season.buckets:
            return self.foretold[0]
        return self.foretold[self.errors.index(min(self.errors))]

    def end(self, season: Season) -> None:
        """The bucket has ended."""
        came = self.count
        if self.ended > 0:
            for method, foretold in enumerate(self.foretold):
                error = abs(came - foretold)
                self.errors[method] += season.error_rate * (error - self.errors[method])
        self._learn(came, season)
        self.counts[self.bucket % season.buckets] = min(came, 65535)
        self.bucket, self.count, self.ended = self.bucket + 1, 0, self.ended + 1
        self.foretold[0] = self.level
        self.foretold[1] = max(0.0, self.smooth + self.trend)
        self.foretold[2] = max(0.0, self.level + self._again(season))

    def _learn(self, came: int, season: Season) -> None:
        rate = season.level_rate if self.ended else 1.0
        self.level += rate * (came - self.level)
        before, expected = self.smooth, self.smooth + self.trend
        self.smooth = expected + rate * (came - expected)
        if self.ended:
            self.trend += season.trend_rate * (self.smooth - before - self.trend)

    def _again(self, season: Season) -> float:
        """What the last period had at this time, beyond what it had had of late."""
        if self.ended < season.buckets:
            return 0.0
        counts, size, now = self.counts, season.buckets, self.bucket
        then = sum(counts[(now + near) % size] for near in (0, 1, 2)) / 3
        late, rate, weight = 0.0, season.level_rate, 1.0
        for back in range(1, min(size - 2, 8)):
            late += rate * weight * counts[(now - back) % size] if back < size else 0.0
            weight *= 1 - rate
        return then - late / (1 - weight)


class Forecast:
    def __init__(self, season: Season | None = None) -> None:
        self.season = season or Season()
        self._courses: OrderedDict[Digest, Course] = OrderedDict()  # who was asked for last is last

    def arrived(self, adapter: Digest, now: float, times: int = 1) -> None:
        bucket = self._bucket(now)
        course = self._courses.pop(adapter, None) or self._new(bucket)
        self._courses[adapter] = course
        self._catch_up(course, bucket)
        course.count += times
        if len(self._courses) > self.season.remembered:
            self._courses.popitem(last=False)

    def expected(self, adapter: Digest, now: float) -> float:
        """Requests in a bucket, from what the buckets before say."""
        course = self._courses.get(adapter)
        if course is None:
            return 0.0
        self._catch_up(course, self._bucket(now))
        return course.best(self.season)

    def every(self, now: float) -> Iterator[tuple[Digest, float]]:
        """What is expected of each; who had nothing for a period is forgotten."""
        bucket, size = self._bucket(now), self.season.buckets
        for adapter, course in list(self._courses.items()):
            if bucket - course.bucket > size or not (course.count or any(course.counts)):
                del self._courses[adapter]
                continue
            self._catch_up(course, bucket)
            yield adapter, course.best(self.season)

    def course(self, adapter: Digest) -> Course | None:
        return self._courses.get(adapter)

    @property
    def known(self) -> int:
        """Adapters that are remembered."""
        return len(self._courses)

    def _bucket(self, now: float) -> int:
        return int(now // self.season.bucket_seconds)

    def _new(self, bucket: int) -> Course:
        return Course(bucket, array("H", bytes(2 * self.season.buckets)))

    def _catch_up(self, course: Course, bucket: int) -> None:
        """Buckets that ended since; a period without requests says all that more would."""
        if bucket - course.bucket > self.season.buckets:
            course.bucket = bucket - self.season.buckets
        while course.bucket < bucket:
            course.end(self.season)
