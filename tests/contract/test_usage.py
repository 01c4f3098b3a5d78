"""What the books say, and to whom, on SQLite and PostgreSQL."""

import random
from collections import Counter, defaultdict
from itertools import combinations
from typing import cast
from uuid import uuid4

import pytest

from lorikeet.gateway.v1 import usage_service_pb2 as pb
from lorikeet.types.v1.tier_pb2 import ServiceTier
from services.core.errors import InvalidRequest, NotFound, PermissionDenied
from services.core.types import KeyId, RequestId, TenantId, Tier
from services.gateway import usage as module
from services.gateway.ledger import Batch
from services.gateway.records import LOST, Record
from services.gateway.repositories.ledger import SqlLedger
from services.gateway.repositories.usage import SqlUsage
from services.gateway.usage import Dimension, Filter, Usage, explanation
from services.gateway.usage_servicer import UsageServicer
from services.runtime import call
from services.runtime.auth import Caller
from services.runtime.call import Call
from services.runtime.db import Sessions
from services.runtime.interceptors import Context
from services.runtime.paging import Page
from services.runtime.wire import tier_from_wire
from tests.books import record

OPERATOR = Caller(None)
HOUR = 3_600_000_000
DAY = 24 * HOUR
START = 1_800_000_000_000_000 // DAY * DAY


@pytest.fixture
def usage(sessions: Sessions) -> Usage:
    return Usage(SqlUsage(sessions))


@pytest.fixture
async def kept(sessions: Sessions) -> dict[str, list[Record]]:
    """Of two tenants, some at the same microsecond; the last of each still runs."""
    draw = random.Random(0)
    kept = {}
    for tenant in (f"t{uuid4().hex[:8]}", f"u{uuid4().hex[:8]}"):
        kept[tenant] = [
            record(
                tenant,
                key=draw.choice(["k1", "k2"]),
                model=draw.choice(["pirate", "tiny"]),
                adapter=draw.choice(["", "a" * 64, "b" * 64]),
                tier=draw.choice(list(Tier)),
                accepted_us=START + draw.randrange(60) * HOUR // 2,
                tokens=draw.randrange(1, 9),
                cached_tokens=draw.randrange(3),
                outcome=draw.choice(["STOP", "LENGTH", "CANCELLED", LOST]),
            )
            for _ in range(60)
        ]
        running = record(tenant, accepted_us=START, tokens=5)
        await SqlLedger(sessions).write(Batch("i", opened=[running], closed=kept[tenant]))
        kept[tenant].append(running)
    return kept


def caller(tenant: str) -> Caller:
    return Caller(TenantId(tenant), KeyId("k1"))


def word_of(tier: ServiceTier.ValueType) -> str:
    return ServiceTier.Name(tier).removeprefix("SERVICE_TIER_").lower()


KEYS = {
    Dimension.TENANT: lambda r: r.tenant,
    Dimension.KEY: lambda r: r.key,
    Dimension.ADAPTER: lambda r: r.adapter,
    Dimension.MODEL: lambda r: r.model,
    Dimension.HOUR: lambda r: r.accepted_us // HOUR * HOUR,
    Dimension.DAY: lambda r: r.accepted_us // DAY * DAY,
    Dimension.TIER: lambda r: r.tier,
}
FIELDS = {Dimension.HOUR: "start_us", Dimension.DAY: "start_us"}
SUMMED = ("prompt_tokens", "cached_tokens", "completion_tokens", "charge")


async def test_sums_by_anything_are_those_of_the_rows(
    usage: Usage, kept: dict[str, list[Record]]
) -> None:
    tenant = next(iter(kept))
    for by in [()] + [c for size in (1, 2, 3) for c in combinations(Dimension, size)]:
        if {Dimension.HOUR, Dimension.DAY} <= set(by):
            continue
        expected: dict[tuple[object, ...], list[float]] = defaultdict(lambda: [0] * 5)
        for row in kept[tenant]:
            if row.outcome is not None:
                group = expected[tuple(KEYS[dimension](row) for dimension in by)]
                for index, value in enumerate([1, *(getattr(row, name) for name in SUMMED)]):
                    group[index] += value
        found = {
            tuple(getattr(each, FIELDS.get(d, d.value)) for d in by): [
                each.requests, *(getattr(each, name) for name in SUMMED)
            ]
            for each in await usage.sums(caller(tenant), Filter(), by)
        }  # fmt: skip
        assert found == expected


async def test_tiers_go_over_the_wire(usage: Usage, kept: dict[str, list[Record]]) -> None:
    tenant = next(iter(kept))
    call.enter(Call(RequestId("r"), caller(tenant)))
    servicer, context = UsageServicer(usage), cast(Context, None)
    by_both = pb.GetUsageRequest(group_by=[pb.USAGE_DIMENSION_TIER, pb.USAGE_DIMENSION_KEY])
    sums = (await servicer.GetUsage(by_both, context)).sums
    ended = Counter((row.key, row.tier) for row in kept[tenant] if row.outcome is not None)
    found = [(KeyId(each.key), word_of(each.tier)) for each in sums]
    assert found == sorted(ended)  # by key, then by tier
    assert [each.requests for each in sums] == [ended[each] for each in found]
    for each in (await servicer.GetUsage(pb.GetUsageRequest(), context)).sums:
        assert tier_from_wire(each.tier) is None
    listed = await servicer.ListRequests(pb.ListRequestsRequest(page_size=1000), context)
    tiers = {row.id: row.tier for row in kept[tenant]}
    assert {row.id: word_of(row.tier) for row in listed.requests} == tiers


async def test_a_filter_narrows(usage: Usage, kept: dict[str, list[Record]]) -> None:
    tenant = next(iter(kept))
    rows = [row for row in kept[tenant] if row.outcome is not None]
    for asked, fits in (
        (Filter(key="k1"), lambda r: r.key == "k1"),
        (Filter(adapter="a" * 64), lambda r: r.adapter == "a" * 64),
        (Filter(model="pirate"), lambda r: r.model == "pirate"),
        (Filter(since_us=START + 5 * HOUR), lambda r: r.accepted_us >= START + 5 * HOUR),
        (Filter(until_us=START + 5 * HOUR), lambda r: r.accepted_us < START + 5 * HOUR),
        (Filter(tenant=tenant, ended_only=True), lambda r: True),
    ):
        (found,) = await usage.sums(caller(tenant), asked, [])
        assert found.requests == sum(map(fits, rows)) > 0
        listed, _ = await usage.requests(caller(tenant), asked, Page(1000, ""), newest_first=True)
        assert sum(row.outcome is not None for row in listed) == found.requests
    assert await usage.sums(caller(tenant), Filter(key="nothing"), []) == []


@pytest.mark.parametrize("newest_first", [True, False])
async def test_pages_show_every_request_once_in_order(
    usage: Usage, kept: dict[str, list[Record]], newest_first: bool
) -> None:
    tenant, token, found = next(iter(kept)), "", []
    while True:
        page = Page.asked(7, token)
        rows, token = await usage.requests(
            caller(tenant), Filter(), page, newest_first=newest_first
        )
        found += rows
        if not token:
            break
    assert sorted(found, key=lambda r: r.id) == sorted(kept[tenant], key=lambda r: r.id)
    times = [row.accepted_us for row in found]
    assert times == sorted(times, reverse=newest_first)


async def test_a_tenant_sees_its_own_and_the_operator_anybodys(
    usage: Usage, kept: dict[str, list[Record]]
) -> None:
    tenant, other = kept
    for asked in (Filter(), Filter(tenant=tenant)):
        (found,) = await usage.sums(caller(tenant), asked, [Dimension.TENANT])
        assert (found.tenant, found.requests) == (tenant, 60)
        rows, _ = await usage.requests(caller(tenant), asked, Page(1000, ""), newest_first=True)
        assert {row.tenant for row in rows} == {tenant}
    everybody = await usage.sums(OPERATOR, Filter(), [Dimension.TENANT])
    assert {tenant, other} <= {each.tenant for each in everybody}
    (found,) = await usage.sums(OPERATOR, Filter(tenant=other), [Dimension.TENANT])
    assert found.tenant == other


async def test_nobody_sees_another_tenants(usage: Usage, kept: dict[str, list[Record]]) -> None:
    tenant, other = kept
    asked = Filter(tenant=other)
    with pytest.raises(PermissionDenied):
        await usage.sums(caller(tenant), asked, [])
    with pytest.raises(PermissionDenied):
        await usage.requests(caller(tenant), asked, Page(10, ""), newest_first=True)
    with pytest.raises(PermissionDenied):
        await usage.explain(caller(tenant), other, kept[other][0].id)
    said = []
    for request in (kept[other][0].id, kept[other][0].asked_id, "nothing"):
        with pytest.raises(NotFound) as caught:
            await usage.explain(caller(tenant), "", request)
        said.append(caught.value.message.replace(request, "X"))
    assert len(set(said)) == 1
    assert await usage.explain(OPERATOR, "", kept[other][0].id) == [kept[other][0]]


async def test_a_page_token_of_anothers_shows_nothing_of_theirs(
    usage: Usage, kept: dict[str, list[Record]]
) -> None:
    tenant, other = kept
    _, token = await usage.requests(caller(other), Filter(), Page(5, ""), newest_first=True)
    page = Page.asked(1000, token)
    rows, _ = await usage.requests(caller(tenant), Filter(), page, newest_first=True)
    assert {row.tenant for row in rows} <= {tenant}


async def test_requests_that_are_called_the_same_are_all_explained(
    usage: Usage, sessions: Sessions
) -> None:
    tenant, other = f"t{uuid4().hex[:8]}", f"u{uuid4().hex[:8]}"
    rows = [record(tenant, accepted_us=n, outcome="STOP", asked_id="mine") for n in range(3)]
    theirs = record(other, outcome="STOP", asked_id="mine")
    await SqlLedger(sessions).write(Batch("i", closed=[*rows, theirs]))
    assert await usage.explain(caller(tenant), "", "mine") == rows[::-1]
    assert await usage.explain(caller(tenant), "", rows[1].id) == [rows[1]]


@pytest.mark.parametrize(
    ("asked", "by", "field"),
    [
        (Filter(key="a\0"), [], "filter.key"),
        (Filter(model="x" * 256), [], "filter.model"),
        (Filter(since_us=5, until_us=5), [], "filter.end_time"),
        (Filter(), [Dimension.DAY, Dimension.DAY], "group_by"),
        (Filter(), [Dimension.DAY, Dimension.HOUR], "group_by"),
    ],
)
async def test_what_cannot_be_asked_is_said_with_its_field(
    usage: Usage, asked: Filter, by: list[Dimension], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await usage.sums(OPERATOR, asked, by)
    assert caught.value.violations[0].field == field


async def test_a_page_token_that_is_none_is_refused(usage: Usage) -> None:
    for token in ("x", "-1:a", "1" * 30 + ":a", "1:\0"):
        with pytest.raises(InvalidRequest, match="page_token"):
            await usage.requests(OPERATOR, Filter(), Page(10, token), newest_first=True)


async def test_too_many_sums_are_refused(
    usage: Usage, kept: dict[str, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_SUMS", 5)
    tenant = next(iter(kept))
    with pytest.raises(InvalidRequest, match="more than 5 sums"):
        await usage.sums(caller(tenant), Filter(), [Dimension.HOUR])


def test_an_explanation_says_why_where_and_how_much() -> None:
    row = record(
        "acme",
        tokens=4,
        outcome="STOP",
        worker="worker-1",
        adapter="ab" * 32,
        cached_tokens=2,
        queue_us=1_500_000,
        first_token_us=1_750_000,
        total_us=2_000_000,
    )
    assert explanation(row) == [
        "It waited 1.5 s until a worker had room for it.",
        "Its first token came 1.75 s after it was accepted; its prompt has 3 tokens, "
        "2 of them from the cache.",
        "It ran on worker-1 (tiny with abababababab), and ended with STOP after 2 s.",
        "It cost 11 for 3 tokens of prompt and 4 of output, "
        "by WeightedTokens(prompt=1.0, output=2.0).",
    ]


def test_an_explanation_says_a_tier_that_is_not_the_usual_one() -> None:
    said = {tier: " ".join(explanation(record("acme", tier=tier))) for tier in Tier}
    assert "Its tier of service is priority." in said[Tier.PRIORITY]
    assert "Its tier of service is flex." in said[Tier.FLEX]
    assert "tier" not in said[Tier.DEFAULT]


def test_what_is_not_known_is_not_made_up() -> None:
    said = " ".join(explanation(record("acme")))
    assert "It waits for a worker" in said
    assert "has not ended" in said
    assert "its gateway died" in " ".join(explanation(record("acme", outcome=LOST)))
