"""How many requests an adapter will get next: as of late, or half as a period ago.

`ema`: as of late. `seasonal`: the mean of that and of the same time of the last period; it is
heeded where it has been nearer. A trend carried on (Holt's) was further off than `ema` on every
trace of `bench.placement`, so it is not here.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from services.core.types import Digest

METHODS = ("ema", "seasonal")
NEARER = 0.95  # so much less off than `ema` is what `seasonal` has to be


@dataclass(frozen=True, slots=True)
class Season:
    """`bucket_seconds`: what is foretold at a time; `buckets`: of a period, after which things are
    expected to happen again. `level_rate`, `error_rate`: how fast averages follow."""

    bucket_seconds: float = 300.0
    buckets: int = 24 * 12
    level_rate: float = 0.3
    error_rate: float = 0.03
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
    foretold: list[float] = field(default_factory=lambda: [0.0] * len(METHODS))
    errors: list[float] = field(default_factory=lambda: [0.0] * len(METHODS))

    def best(self, season: Season) -> float:
        """Of the next bucket; by the plain average until a whole period was seen."""
        if self.ended <= season.buckets:
            return self.foretold[0]
        ema, seasonal = self.errors
        return self.foretold[1 if seasonal < NEARER * ema else 0]

    def end(self, season: Season) -> None:
        """The bucket has ended."""
        came = self.count
        if self.ended > 0:
            for method, foretold in enumerate(self.foretold):
                error = abs(came - foretold)
                self.errors[method] += season.error_rate * (error - self.errors[method])
        self.level += (season.level_rate if self.ended else 1.0) * (came - self.level)
        self.counts[self.bucket % season.buckets] = min(came, 65535)
        self.bucket, self.count, self.ended = self.bucket + 1, 0, self.ended + 1
        self.foretold[0] = self.level
        self.foretold[1] = self._again(season)

    def _again(self, season: Season) -> float:
        """Half of it from this bucket and the one after it, a period ago, once one has ended."""
        if self.ended < season.buckets:
            return self.level
        then = (self.bucket % season.buckets, (self.bucket + 1) % season.buckets)
        return (self.level + sum(self.counts[bucket] for bucket in then) / 2) / 2


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
                self._courses.pop(adapter, None)
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
        if course.bucket < bucket:
            course.end(self.season)
        skipped = bucket - course.bucket - self.season.buckets
        if skipped > 0:
            course.level *= (1 - self.season.level_rate) ** skipped
            course.bucket += skipped
        while course.bucket < bucket:
            course.end(self.season)
