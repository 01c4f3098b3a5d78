"""How many workers a base model should have, by what waits, what runs, and who came in time."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """`sequences_used`, `pages_used`: shares of what workers have that are to be in use.
    `in_time`: share of the requests whose first token is to come in time. `longest_wait_seconds`:
    that the first in the queue may wait. `step`: by how much there may be more at once."""

    least: int = 1
    most: int = 1000
    sequences_used: float = 0.7
    pages_used: float = 0.8
    in_time: float = 0.95
    longest_wait_seconds: float = 5.0
    step: float = 2.0


@dataclass(frozen=True, slots=True)
class Need:
    """`workers`: that serve. `sequences`: that run or wait in them or before them; `room`: that the
    workers can run at once. `pages_used`: share of their memory."""

    workers: int
    sequences: int
    room: int
    pages_used: float = 0.0
    longest_wait_seconds: float = 0.0
    in_time: float = 1.0


def workers_wanted(need: Need, rules: Rules) -> int:
    """The most that one of the signals asks for. Of fewer only so many fewer as all of them allow:
    how long to wait before there are fewer is for whoever scales."""
    if need.workers == 0:
        return _within(rules, 1 if need.sequences else 0)
    each = need.room / need.workers or 1.0
    wanted = max(
        math.ceil(need.sequences / (each * rules.sequences_used)),
        math.ceil(need.workers * need.pages_used / rules.pages_used),
    )
    late = need.in_time < rules.in_time or need.longest_wait_seconds > rules.longest_wait_seconds
    if late:
        wanted = max(wanted, need.workers + 1)
    return _within(rules, min(wanted, math.ceil(need.workers * rules.step)))


def _within(rules: Rules, wanted: int) -> int:
    return min(max(wanted, rules.least), rules.most)
