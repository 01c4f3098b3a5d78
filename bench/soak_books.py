"""What clients were told, held against what is on the books."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.soak_streams import LEFT, METERED, STUCK, WHOLE, Told
from lorikeet.gateway.v1 import usage_service_pb2 as pb

ENDED_WELL = ("STOP", "LENGTH")
OF_CLIENTS = (*ENDED_WELL, "CANCELLED")
UNAVAILABLE = ("UNAVAILABLE:", "503:", "event:")
LOST = (
    "the worker was lost in the middle of the stream",
    "no worker for ",
    "the call to the worker broke",
    "the worker ended the call",
    "the worker is gone",
    "the worker fell silent",
    "every worker has failed it",
)
"""What a worker that is killed explains."""
REFUSED = ("RESOURCE_EXHAUSTED", "429:")  # for the metered tenant


@dataclass(frozen=True, slots=True)
class Totals:
    """Of what was read to its end: tokens that the clients counted, and those on the books."""

    requests: int
    delivered: int
    booked: int


def stuck(told: Sequence[Told]) -> list[str]:
    return [f"{each}" for each in told if each.end == STUCK]


def unexpected(told: Sequence[Told]) -> list[str]:
    """Ends that nothing explains."""
    return [f"{each}" for each in told if not _is_explained(each)]


def _is_explained(told: Told) -> bool:
    if told.end in (WHOLE, LEFT, STUCK):
        return True
    if told.end.startswith(UNAVAILABLE):
        return any(why in told.end for why in LOST)
    return told.tenant == METERED and told.end.startswith(REFUSED)


def misbooked(told: Sequence[Told], rows: Sequence[pb.RequestRecord]) -> list[str]:
    """Requests that are on the books wrongly, twice, not, or without anybody who asked."""
    times = Counter(row.asked_id for row in rows)
    by_id = {row.asked_id: row for row in rows}
    named = {each.id for each in told}
    wrong = [f"{name} is on the books {count} times" for name, count in times.items() if count > 1]
    wrong += [f"{row.asked_id} has not ended" for row in rows if not row.outcome]
    for each in told:
        if each.id and (fault := _fault(each, by_id.get(each.id))):
            wrong.append(f"{fault}: {each} {by_id.get(each.id)}")
    nameless = sum(1 for each in told if not each.id and each.manner != "half")
    strangers = len(set(by_id) - named)
    if strangers > nameless:
        wrong.append(f"{strangers} on the books, but {nameless} clients do not know their ids")
    return wrong


def _fault(told: Told, row: pb.RequestRecord | None) -> str:
    """Of one whose id its client knows."""
    if row is None:
        return "it got tokens and is not on the books" if told.tokens else ""
    if told.tenant != row.tenant:
        return "it is another's on the books"
    booked = row.completion_tokens
    if told.end == WHOLE:
        well = told.tokens == told.said == booked and row.outcome in ENDED_WELL
        return "" if well else "what was read to its end is not what is on the books"
    if told.end == LEFT:
        return "fewer tokens on the books than were read" if booked < told.tokens else ""
    return "" if booked == told.tokens else "what an error ended has other tokens on the books"


def is_out_of_budget(told: Told) -> bool:
    return told.tenant == METERED and "can no longer fit" in told.end


def totals(told: Sequence[Told], rows: Sequence[pb.RequestRecord]) -> Totals:
    booked = {row.asked_id: row.completion_tokens for row in rows}
    whole = [each for each in told if each.end == WHOLE]
    return Totals(
        requests=len(whole),
        delivered=sum(each.tokens for each in whole),
        booked=sum(booked.get(each.id, 0) for each in whole),
    )


def off_sums(rows: Sequence[pb.RequestRecord], sums: Sequence[pb.UsageSum]) -> list[str]:
    """Tenants whose sums are not those of their rows."""
    by_tenant: dict[str, list[pb.RequestRecord]] = {}
    for row in rows:
        by_tenant.setdefault(row.tenant, []).append(row)
    counted = {name: _sum(of_tenant) for name, of_tenant in by_tenant.items()}
    told = {
        each.tenant: (
            each.requests,
            each.prompt_tokens,
            each.cached_tokens,
            each.completion_tokens,
            each.charge,
        )
        for each in sums
    }
    return [
        f"{name}: {counted.get(name)} in rows, {told.get(name)} in sums"
        for name in counted | told
        if counted.get(name) != told.get(name)
    ]


def _sum(rows: Sequence[pb.RequestRecord]) -> tuple[float, ...]:
    return (
        len(rows),
        sum(row.prompt_tokens for row in rows),
        sum(row.cached_tokens for row in rows),
        sum(row.completion_tokens for row in rows),
        sum(row.charge for row in rows),
    )


def metered_tokens(rows: Sequence[pb.RequestRecord]) -> int:
    """What the metered tenant has used of its quota, by its rows."""
    return sum(
        row.prompt_tokens + row.completion_tokens
        for row in rows
        if row.tenant == METERED and (row.completion_tokens or row.outcome in OF_CLIENTS)
    )


def most_at_once(rows: Sequence[pb.RequestRecord]) -> int:
    """Of the metered tenant's requests, between when a worker began with them and their end."""
    moments = sorted(_moments(rows))
    running = most = 0
    for _, change in moments:
        running += change
        most = max(most, running)
    return most


def _moments(rows: Sequence[pb.RequestRecord]) -> Iterator[tuple[int, int]]:
    for row in rows:
        if row.tenant == METERED and row.HasField("queue_us") and row.HasField("total_us"):
            accepted = row.accept_time.ToMicroseconds()
            yield accepted + row.queue_us, 1
            yield accepted + row.total_us, -1


def ends(told: Sequence[Told]) -> Mapping[str, int]:
    """How many ended how, errors without what follows their code."""
    return Counter(each.end.partition(":")[0] for each in told)
