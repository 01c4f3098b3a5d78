"""Limits against a reference that counts every token one by one."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.policies.quotas import (
    BUDGETS,
    MINUTE,
    RUNNING_SECONDS,
    Account,
    Amount,
    Limits,
    Second,
    Use,
    month_ends,
    month_of,
    refusal,
    standing,
)

START = int(datetime(2026, 11, 30, 23, 58, tzinfo=UTC).timestamp())  # two minutes before a month
SMALL = st.none() | st.integers(0, 40)
LIMITS = st.builds(Limits, SMALL, SMALL, SMALL, SMALL, SMALL)


@dataclass(slots=True)
class Request:
    ask: Amount
    since: int
    spent: Amount | None = None
    ended: int = 0


class Reference:
    """Keeps every request for good, and adds up."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests: list[Request] = []

    def used(self, now: int) -> dict[str, int]:
        running = [r for r in self.requests if r.spent is None]
        ended = [(r, r.spent) for r in self.requests if r.spent is not None]
        held = sum(r.ask.tokens for r in running)
        let_in = [(r.since, (r.spent or r.ask).requests) for r in self.requests]
        return {
            "requests_per_minute": sum(n for at, n in let_in if now - at <= MINUTE),
            "tokens_per_minute": held
            + sum(spent.tokens for r, spent in ended if now - r.ended <= MINUTE),
            "concurrent_requests": sum(r.ask.requests for r in running),
            "tokens_per_month": held
            + sum(spent.tokens for r, spent in ended if month_of(r.ended) == month_of(now)),
            "tokens_in_total": held + sum(spent.tokens for _, spent in ended),
        }

    def fits(self, ask: Amount, now: int) -> bool:
        used = self.used(now)
        asked = {name: ask.tokens if "tokens" in name else ask.requests for name in used}
        limits = {name: getattr(self.limits, name) for name in used}
        return all(
            most is None or used[name] + asked[name] <= most for name, most in limits.items()
        )


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 3), st.integers(0, 25)),
        st.tuples(st.just("end"), st.integers(0, 9), st.integers(0, 25)),
        st.tuples(st.just("wait"), st.integers(0, 50), st.just(0)),
    ),
    max_size=40,
)


@given(LIMITS, MOVES)
@settings(max_examples=400)
def test_a_request_runs_exactly_if_the_reference_has_room(limits: Limits, moves: list[Any]) -> None:
    reference, use, now = Reference(limits), Use(), START
    for kind, first, second in moves:
        running = [r for r in reference.requests if r.spent is None]
        if kind == "wait":
            now += first
        elif kind == "ask":
            ask = Amount(first, second)
            refused = refusal(Account(limits, use), ask, now)
            assert (refused is None) == reference.fits(ask, now)
            if refused is None:
                use = use.reserved(ask, now)
                reference.requests.append(Request(ask, now))
        elif running:
            request = running[first % len(running)]
            served = first % 2 * request.ask.requests
            request.spent = Amount(served, min(second, request.ask.tokens) if served else 0)
            request.ended = now
            use = use.settled(request.ask, request.spent, since=request.since, now=now)
        for name, count in reference.used(now).items():
            most = getattr(limits, name)
            assert most is None or count <= most
        shown = standing([Account(limits, use)], now)
        if limits.tokens_per_minute is not None:
            assert shown.tokens is not None
            used = reference.used(now)["tokens_per_minute"]
            assert shown.tokens.left == limits.tokens_per_minute - used
    for request in reference.requests:
        if request.spent is None:
            use = use.settled(request.ask, Amount(), since=request.since, now=now)
    assert use.running == Amount()


@given(
    st.lists(st.tuples(st.integers(0, 59), st.integers(0, 9), st.integers(0, 9)), max_size=30),
    st.integers(1, 30),
)
def test_no_sixty_seconds_see_more_tokens_than_the_limit(
    asked: list[tuple[int, int, int]], most: int
) -> None:
    """Each request delivers its tokens at whichever moment of its run."""
    limits, use = Limits(tokens_per_minute=most), Use()
    running: list[tuple[int, int, Amount, int]] = []  # end, moment of delivery, ask, since
    delivered: list[tuple[int, int]] = []
    now = START
    for pause, lasts, tokens in asked:
        for end, moment, ask, since in sorted(running, key=lambda run: run[0]):
            if end <= now + pause:
                use = use.settled(ask, ask, since=since, now=end)
                running.remove((end, moment, ask, since))
        now += pause
        ask = Amount(1, tokens)
        if refusal(Account(limits, use), ask, now) is None:
            use = use.reserved(ask, now)
            end = now + lasts * 20
            running.append((end, (now + end) // 2, ask, now))
            delivered.append(((now + end) // 2, tokens))
    for begin, _ in delivered:
        assert sum(n for at, n in delivered if begin <= at < begin + MINUTE) <= most


SECONDS = st.lists(
    st.builds(Second, st.integers(START - 90, START), st.integers(0, 9), st.integers(0, 9)),
    max_size=8,
    unique_by=lambda second: second.at,
)
USES = st.builds(
    lambda seconds, running, month, total: Use(
        running, month_of(START), month, month + total, tuple(sorted(seconds, key=lambda s: s.at))
    ),
    SECONDS,
    st.builds(Amount, st.integers(0, 9), st.integers(0, 30)),
    st.integers(0, 40),
    st.integers(0, 40),
)


@given(LIMITS, USES, st.builds(Amount, st.integers(1, 3), st.integers(0, 25)))
@settings(max_examples=400)
def test_when_to_come_back_is_the_first_second_with_room(
    limits: Limits, use: Use, ask: Amount
) -> None:
    refused = refusal(Account(limits, use), ask, START)
    if refused is None:
        return
    only = replace(Limits(), **{refused.limit: getattr(limits, refused.limit)})
    moments = [*range(START, START + MINUTE + 2), START + month_ends(START)]

    def soonest(use: Use) -> int | None:
        fit = (at - START for at in moments if refusal(Account(only, use), ask, at) is None)
        return next(fit, None)

    expected = None if refused.limit in BUDGETS else soonest(use)
    if expected is None:
        at_best = soonest(replace(use, running=Amount()))
        expected = None if at_best is None else max(RUNNING_SECONDS, at_best)
    assert refused.seconds == expected
    alone = soonest(Use())
    if refused.limit != "tokens_in_total":
        assert (refused.seconds is None) == (alone is None)


@given(USES, st.integers(-200, 200))
def test_a_clock_that_goes_back_frees_nothing(use: Use, jump: int) -> None:
    before = use.seen(START)
    now = START - abs(jump)
    after = before.seen(now)
    assert sum(s.tokens for s in after.window) == sum(s.tokens for s in before.window)
    assert after.seen(now + MINUTE + 1).window == ()
    assert after.month_tokens == before.month_tokens
