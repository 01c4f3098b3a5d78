"""May a request run? What a tenant's limits say of it, given what the tenant has used.

A request is reserved with the most that it can use and settled with what it did. While it runs,
its reservation counts against every limit; when it has ended, what it used counts

- against the tokens of a minute for 60 seconds more (up to 61: seconds are counted whole),
- against the tokens of the month in which it ended (UTC), and against those in total.

So the requests that deliver anything within some 60 seconds, whichever they are, have all been
counted together when the last of them was let in: they run then or have ended within the 60
seconds before. In no window of 60 seconds are more tokens read and delivered than the limit of
that moment, nor are they in a month by the requests that end in it, nor in total. The price: a
request that takes long counts all its time and a minute more.

Requests are counted when they are let in: in no window of 60 seconds are more let in.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from math import inf

MINUTE = 60
RUNNING_SECONDS = 1
"""When to ask again if only requests that run are in the way: nobody knows when they end."""


@dataclass(frozen=True, slots=True)
class Limits:
    """None: there is no such limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    tokens_per_month: int | None = None
    tokens_in_total: int | None = None

    @property
    def any(self) -> bool:
        return any(getattr(self, field.name) is not None for field in fields(self))


BUDGETS = frozenset({"tokens_per_month", "tokens_in_total"})


@dataclass(frozen=True, slots=True)
class Amount:
    """What a request may use, or has used."""

    requests: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Second:
    """`requests` were let in, and requests that used `tokens` ended, in the second `at` (1970)."""

    at: int
    requests: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Use:
    """What a tenant, or a key, uses and has used. All `now` are seconds since 1970."""

    running: Amount = Amount()
    month: int = 0  # of which month_tokens are; months since the year 0
    month_tokens: int = 0
    total_tokens: int = 0
    window: tuple[Second, ...] = ()  # by `at`

    def seen(self, now: int) -> "Use":
        """Without what no longer counts. If the clock went back, what was then to come is now."""
        window: tuple[Second, ...] = ()
        for second in self.window:
            if now - second.at <= MINUTE:
                window = _added(window, replace(second, at=min(second.at, now)))
        month = max(self.month, month_of(now))
        month_tokens = self.month_tokens if month == self.month else 0
        return replace(self, window=window, month=month, month_tokens=month_tokens)

    def reserved(self, ask: Amount, now: int) -> "Use":
        seen = self.seen(now)
        running = Amount(self.running.requests + ask.requests, self.running.tokens + ask.tokens)
        window = _added(seen.window, Second(now, ask.requests, 0))
        return replace(seen, running=running, window=window)

    def settled(self, ask: Amount, spent: Amount, *, since: int, now: int) -> "Use":
        """`ask` was reserved at `since`. The requests of it that are not spent never were."""
        seen = self.seen(now)
        window = tuple(
            replace(second, requests=max(0, second.requests - ask.requests + spent.requests))
            if second.at == min(since, now)
            else second
            for second in seen.window
        )
        return replace(
            seen,
            running=Amount(self.running.requests - ask.requests, self.running.tokens - ask.tokens),
            month_tokens=seen.month_tokens + spent.tokens,
            total_tokens=self.total_tokens + spent.tokens,
            window=_added(window, Second(now, 0, spent.tokens)),
        )


@dataclass(frozen=True, slots=True)
class Account:
    limits: Limits
    use: Use


@dataclass(frozen=True, slots=True)
class Refusal:
    """The limit that takes longest to make room, and seconds until it has if nobody else comes.

    What runs is taken to go on, if there comes to be room beside it within the minute; else, and
    for budgets, to end at once: that is the soonest that there can be room. None: there never is.
    """

    limit: str
    seconds: int | None
    key: str = ""  # whose limit it is; "": the tenant's


@dataclass(frozen=True, slots=True)
class Rate:
    """`reset`: seconds until all is left again, if those that run ended now."""

    limit: int
    left: int
    reset: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Of the limits by the minute."""

    requests: Rate | None = None
    tokens: Rate | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    refusal: Refusal | None
    standing: Standing
    """After the decision."""


def refusal(account: Account, ask: Amount, now: int) -> Refusal | None:
    """None: the request may run."""
    refusals = list(_refusals(account.limits, account.use.seen(now), ask, now))
    return longest(refusals)


def longest(refusals: Sequence[Refusal]) -> Refusal | None:
    return max(refusals, key=lambda r: inf if r.seconds is None else r.seconds, default=None)


def standing(accounts: Sequence[Account], now: int) -> Standing:
    """Where several accounts have a limit, that of which less is left."""
    requests, tokens = [], []
    for account in accounts:
        limits, use = account.limits, account.use.seen(now)
        if limits.requests_per_minute is not None:
            entered = [second for second in use.window if second.requests]
            used = sum(second.requests for second in entered)
            requests.append(_rate(limits.requests_per_minute, used, entered, now))
        if limits.tokens_per_minute is not None:
            ended = [second for second in use.window if second.tokens]
            if use.running.tokens:
                ended.append(Second(now, 0, use.running.tokens))
            used = sum(second.tokens for second in ended)
            tokens.append(_rate(limits.tokens_per_minute, used, ended, now))
    return Standing(
        min(requests, key=lambda rate: rate.left, default=None),
        min(tokens, key=lambda rate: rate.left, default=None),
    )


def month_of(now: int) -> int:
    moment = datetime.fromtimestamp(now, UTC)
    return moment.year * 12 + moment.month - 1


def month_ends(now: int) -> int:
    """Seconds until the next month begins."""
    year, month = divmod(month_of(now) + 1, 12)
    return int(datetime(year, month + 1, 1, tzinfo=UTC).timestamp()) - now


def _refusals(limits: Limits, use: Use, ask: Amount, now: int) -> Iterator[Refusal]:
    if (most := limits.requests_per_minute) is not None:
        entered = [(second.at, second.requests) for second in use.window]
        if over := _over(most, ask.requests, sum(count for _, count in entered)):
            never = ask.requests > most
            yield Refusal("requests_per_minute", None if never else _gone(entered, over, now))
    if (most := limits.tokens_per_minute) is not None:
        ended = [(second.at, second.tokens) for second in use.window]
        used = use.running.tokens + sum(count for _, count in ended)
        if over := _over(most, ask.tokens, used):
            seconds = _gone(ended, over, now)
            if seconds is None:
                soonest = _gone(ended, over - use.running.tokens, now)
                seconds = max(RUNNING_SECONDS, soonest or 0)
            yield Refusal("tokens_per_minute", None if ask.tokens > most else seconds)
    if (most := limits.concurrent_requests) is not None and _over(
        most, ask.requests, use.running.requests
    ):
        never = ask.requests > most
        yield Refusal("concurrent_requests", None if never else RUNNING_SECONDS)
    if (most := limits.tokens_per_month) is not None and _over(
        most, ask.tokens, use.month_tokens + use.running.tokens
    ):
        seconds = month_ends(now) if _over(most, ask.tokens, use.month_tokens) else RUNNING_SECONDS
        yield Refusal("tokens_per_month", None if ask.tokens > most else seconds)
    if (most := limits.tokens_in_total) is not None and _over(
        most, ask.tokens, use.total_tokens + use.running.tokens
    ):
        never = bool(_over(most, ask.tokens, use.total_tokens))
        yield Refusal("tokens_in_total", None if never else RUNNING_SECONDS)


def _over(most: int, asked: int, used: int) -> int:
    return max(0, used + asked - most)


def _gone(counts: Sequence[tuple[int, int]], over: int, now: int) -> int | None:
    """Seconds until so many have left the window, the oldest first; None: there are not so many."""
    if over <= 0:
        return 0
    for at, count in counts:
        over -= count
        if over <= 0:
            return at + MINUTE + 1 - now
    return None


def _rate(most: int, used: int, counted: Sequence[Second], now: int) -> Rate:
    last = max((second.at for second in counted), default=now - MINUTE - 1)
    return Rate(most, max(0, most - used), last + MINUTE + 1 - now)


def _added(window: tuple[Second, ...], new: Second) -> tuple[Second, ...]:
    """`new` is at the last second of the window or after it."""
    if not window or window[-1].at != new.at:
        return (*window, new)
    last = window[-1]
    merged = Second(new.at, last.requests + new.requests, last.tokens + new.tokens)
    return (*window[:-1], merged)
