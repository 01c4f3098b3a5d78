"""Who used what: sums and single requests from the ledger, of whoever may see them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from services.core.errors import InvalidRequest, NotFound
from services.core.types import Tier
from services.gateway.records import LOST, Record
from services.runtime.auth import Caller
from services.runtime.paging import Page, page_of

MOST_SUMS = 10_000
MOST_EXPLAINED = 20
_TOKEN = "page_token"  # noqa: S105 - a field's name


class Dimension(Enum):
    TENANT = "tenant"
    KEY = "key"
    ADAPTER = "adapter"
    MODEL = "model"
    HOUR = "hour"  # of UTC, in which the request was accepted
    DAY = "day"
    TIER = "tier"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Empty and None: whatever it is. Times in microseconds since 1970, until is exclusive."""

    tenant: str = ""
    key: str = ""
    adapter: str = ""
    model: str = ""
    since_us: int | None = None
    until_us: int | None = None
    ended_only: bool = False

    def checked(self, caller: Caller) -> "Filter":
        """With what the caller may see. Raises InvalidRequest or PermissionDenied."""
        for name in ("tenant", "key", "adapter", "model"):
            _check_text(f"filter.{name}", getattr(self, name))
        if None not in (self.since_us, self.until_us) and self.until_us <= self.since_us:  # type: ignore[operator]
            raise InvalidRequest.of("filter.end_time", "must be after start_time")
        return replace(self, tenant=_whose(caller, self.tenant))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """Of requests that have ended. Of the dimensions those that it is by; times in microseconds
    since 1970."""

    tenant: str = ""
    key: str = ""
    adapter: str = ""
    model: str = ""
    start_us: int | None = None
    tier: str = ""
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    charge: float


@dataclass(frozen=True, slots=True)
class Place:
    """A request's, among all by time."""

    accepted_us: int
    id: str


class UsageRows(Protocol):
    async def sums(self, asked: Filter, by: Sequence[Dimension], *, limit: int) -> list[Sum]:
        """In the order of what they are by, times first."""
        ...

    async def records(
        self, asked: Filter, *, after: Place | None, newest_first: bool, limit: int
    ) -> list[Record]: ...

    async def called(self, tenant: str, request_id: str, *, limit: int) -> list[Record]:
        """Requests with this id, ours or the caller's, newest first. Tenant "": anybody's."""
        ...


class Usage:
    def __init__(self, rows: UsageRows) -> None:
        self._rows = rows

    async def sums(self, caller: Caller, asked: Filter, by: Sequence[Dimension]) -> list[Sum]:
        if len(set(by)) != len(by):
            raise InvalidRequest.of("group_by", "names a dimension twice")
        if {Dimension.HOUR, Dimension.DAY} <= set(by):
            raise InvalidRequest.of("group_by", "either hours or days")
        asked = replace(asked.checked(caller), ended_only=True)
        found = await self._rows.sums(asked, by, limit=MOST_SUMS + 1)
        if len(found) > MOST_SUMS:
            raise InvalidRequest.of("group_by", f"more than {MOST_SUMS} sums: ask for less time")
        return found

    async def requests(
        self, caller: Caller, asked: Filter, page: Page, *, newest_first: bool
    ) -> tuple[list[Record], str]:
        found = await self._rows.records(
            asked.checked(caller),
            after=_place(page.after),
            newest_first=newest_first,
            limit=page.size + 1,
        )
        return page_of(found, page, key=lambda record: f"{record.accepted_us}:{record.id}")

    async def explain(self, caller: Caller, tenant: str, request_id: str) -> list[Record]:
        """Those that are called so, newest first. Raises NotFound, for another tenant's too."""
        if not request_id:
            raise InvalidRequest.of("request_id", "name a request")
        _check_text("request_id", request_id)
        _check_text("tenant", tenant)
        found = await self._rows.called(_whose(caller, tenant), request_id, limit=MOST_EXPLAINED)
        if not found:
            raise NotFound(f"there is no request {request_id!r}")
        return found


def explanation(record: Record) -> list[str]:
    """Why it waited, where it ran, what it cost: a sentence each."""
    return [*_tier(record), _waited(record), *_first_token(record), _ran(record), _cost(record)]


def _tier(record: Record) -> list[str]:
    """Nothing of what is usual."""
    usual = record.tier == Tier.DEFAULT.value
    return [] if usual else [f"Its tier of service is {record.tier}."]


def _waited(record: Record) -> str:
    if record.queue_us is not None:
        return f"It waited {_duration(record.queue_us)} until a worker had room for it."
    if record.outcome is None:
        return "It waits for a worker that has room for it, or for its first token."
    return "When a worker began with it is not on the books."


def _first_token(record: Record) -> list[str]:
    if record.first_token_us is None:
        return []
    after = _duration(record.first_token_us)
    cached = f", {record.cached_tokens} of them from the cache" if record.cached_tokens else ""
    return [
        f"Its first token came {after} after it was accepted; "
        f"its prompt has {_tokens(record.prompt_tokens)}{cached}."
    ]


def _ran(record: Record) -> str:
    where = f"It ran on {record.worker}" if record.worker else "No worker is on the books for it"
    what = (
        f"{record.base_model} with {record.adapter[:12]}" if record.adapter else record.base_model
    )
    match record.outcome:
        case None:
            end = "and has not ended"
        case outcome if outcome == LOST:
            end = "and its gateway died: counted is what it was last known to have delivered"
        case outcome:
            took = f" after {_duration(record.total_us)}" if record.total_us is not None else ""
            end = f"and ended with {outcome}{took}"
    return f"{where} ({what}), {end}."


def _cost(record: Record) -> str:
    return (
        f"It cost {record.charge:g} for {_tokens(record.prompt_tokens)} of prompt and "
        f"{record.completion_tokens} of output, by {record.cost}."
    )


def _tokens(count: int) -> str:
    return f"{count} token" if count == 1 else f"{count} tokens"


def _duration(microseconds: int) -> str:
    return f"{microseconds / 1e3:.3g} ms" if microseconds < 1e6 else f"{microseconds / 1e6:.3g} s"


def _whose(caller: Caller, tenant: str) -> str:
    """The operator may leave it open."""
    return "" if caller.tenant is None and not tenant else caller.acting_for(tenant)


def _place(token: str) -> Place | None:
    if not token:
        return None
    microseconds, _, request_id = token.partition(":")
    if not (microseconds.isascii() and microseconds.isdigit() and len(microseconds) < 19):
        raise InvalidRequest.of(_TOKEN, "not a token of this service")
    _check_text(_TOKEN, request_id)
    return Place(int(microseconds), request_id)


def _check_text(field: str, text: str) -> None:
    if "\0" in text or len(text) > 255:
        raise InvalidRequest.of(field, "at most 255 characters, none of them NUL")
