"""How far off each way to foretell demand is, on a trace."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping

from services.policies.placement.forecast import METHODS, Course, Season
from services.simulator.placement.traces import Trace

CHOSEN = "chosen"


def errors(trace: Trace, season: Season, *, least: int = 50) -> Mapping[str, float]:
    """By method, and of the one that each adapter's course was led by: requests by which a bucket
    was off, for each that came. From the second period on, of adapters with `least` requests."""
    counts: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for asked in trace.requests:
        counts[asked.adapter][int(asked.at // season.bucket_seconds)] += 1
    off: defaultdict[str, float] = defaultdict(float)
    came = 0
    ends = int(trace.shape.seconds // season.bucket_seconds)
    for buckets in counts.values():
        if buckets.total() < least:
            continue
        course = Course(0, array("H", bytes(2 * season.buckets)))
        for bucket in range(ends):
            count = buckets[bucket]
            if course.ended > season.buckets:
                came += count
                off[CHOSEN] += abs(count - course.best(season))
                for method, foretold in zip(METHODS, course.foretold, strict=True):
                    off[method] += abs(count - foretold)
            course.count = count
            course.end(season)
    return {method: off[method] / max(1, came) for method in (*METHODS, CHOSEN)}
