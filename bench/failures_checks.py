"""What is claimed of streams under failures, and whether it is so."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench import soak_books as books
from bench.failures_load import Stream, Wish
from bench.soak_streams import STUCK, WHOLE
from lorikeet.gateway.v1 import usage_service_pb2 as pb

SHOWN = 5  # of the faults of one kind
STALL_SECONDS = 5.0
RETRYABLE = "UNAVAILABLE:"
GONE = ("Socket closed", "Connection reset", "Connection refused", "recvmsg")  # says gRPC
MARKED_SECONDS = 4.0  # how long before its death what a gateway delivered is surely marked
UNDER_WAY = 16  # tokens, that it had sent and that did not come

Expected = Mapping[Wish, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Row:
    claim: str
    figure: float
    target: str = ""
    holds: bool = True

    def __str__(self) -> str:
        return f"{'' if self.holds else 'NOT: '}{self.claim}: {self.figure:g} {self.target}"


def none(claim: str, faults: Sequence[object]) -> Row:
    if faults:
        print(f"{claim}:", *map(str, faults[:SHOWN]), sep="\n  ", flush=True)
    return Row(claim, len(faults), "0", not faults)


def at_most(claim: str, figure: float, most: float) -> Row:
    return Row(claim, round(figure, 3), f"<= {most:g}", figure <= most)


def at_least(claim: str, figure: float, least: float) -> Row:
    return Row(claim, figure, f">= {least:g}", figure >= least)


def p99(values: Sequence[float]) -> float:
    if len(values) < 2:
        return max(values, default=0.0)
    return statistics.quantiles(values, n=100, method="inclusive")[-1]


def all_whole(streams: Sequence[Stream]) -> list[Row]:
    """No failure of theirs is the clients' business."""
    return [
        at_least("streams", len(streams), 1),
        none("streams that did not complete", [s.told for s in streams if s.told.end != WHOLE]),
    ]


def ended_or_retryable(streams: Sequence[Stream]) -> list[Row]:
    """Each completes or is told clearly that it may ask again."""
    failed = [s for s in streams if s.told.end not in (WHOLE, STUCK)]
    return [
        at_least("streams that completed", sum(s.told.end == WHOLE for s in streams), 1),
        Row("streams that were told to ask again", len(failed)),
        none("streams that are stuck", [s.told for s in streams if s.told.end == STUCK]),
        none(
            "errors that do not say so",
            [s.told for s in failed if not s.told.end.startswith(RETRYABLE)],
        ),
    ]


def exact(streams: Sequence[Stream], expected: Expected) -> Row:
    """What came is how the undisturbed run began, or all of it."""
    return none("streams with other tokens than undisturbed", [_shown(s, expected) for s in streams
        if _is_wrong(s, expected[s.wish])])  # fmt: skip


def _is_wrong(stream: Stream, expected: Sequence[int]) -> bool:
    told = list(stream.tokens)
    return told != list(expected[: len(told)]) or (
        stream.told.end == WHOLE and len(told) != len(expected)
    )


def _shown(stream: Stream, expected: Expected) -> str:
    wanted = list(expected[stream.wish])
    pairs = zip(stream.tokens, wanted, strict=False)
    same = next((n for n, (told, right) in enumerate(pairs) if told != right), len(stream.tokens))
    return f"{stream.told} differs at {same} of {len(wanted)}"


def stalls(streams: Sequence[Stream], *, most: float = STALL_SECONDS) -> list[Row]:
    found = [stream.stall for stream in streams if stream.at]
    return [
        Row("median stall of a stream, s", round(statistics.median(found or [0.0]), 3)),
        at_most("p99 stall of a stream, s", p99(found), most),
        Row("longest stall, s", round(max(found, default=0.0), 3)),
        Row("p99 wait for a first token, s", round(p99([s.wait for s in streams if s.at]), 3)),
    ]


def on_the_books(
    streams: Sequence[Stream], rows: Sequence[pb.RequestRecord], sums: Sequence[pb.UsageSum]
) -> list[Row]:
    """All that there is: nobody else has asked."""
    off = books.off_sums(rows, sums)
    return [*charged(streams, rows), none("tenants whose sums are not those of their rows", off)]


def charged(streams: Sequence[Stream], rows: Sequence[pb.RequestRecord]) -> list[Row]:
    """Once each, and what was delivered."""
    told = [stream.told for stream in streams if not _is_cut(stream)]
    totals = books.totals(told, rows)
    delivered, booked = totals.delivered, totals.booked
    cut = [stream for stream in streams if _is_cut(stream)]
    return [
        none("requests that are wrongly on the books", books.misbooked(told, _without(rows, cut))),
        none(
            "streams cut off with their gateway, charged other than marked", _mismarked(cut, rows)
        ),
        Row("tokens delivered", delivered),
        Row("tokens charged for them", booked, str(delivered), booked == delivered),
    ]


def _is_cut(stream: Stream) -> bool:
    """By the loss of its gateway: nobody was left to say how it ended."""
    return any(word in stream.told.end for word in GONE)


def _mismarked(cut: Sequence[Stream], rows: Sequence[pb.RequestRecord]) -> list[str]:
    """A gateway that dies charges what it marked last: no more than it had sent, and no less than
    had come a while before."""
    found = {row.asked_id: row for row in rows}
    return [
        f"{stream.told}, charged {found[stream.told.id].completion_tokens}"
        if stream.told.id in found
        else f"{stream.told} is not on the books"
        for stream in cut
        if stream.tokens and not _is_marked(stream, found.get(stream.told.id))
    ]


def _is_marked(stream: Stream, row: pb.RequestRecord | None) -> bool:
    least = stream.had(stream.ended - MARKED_SECONDS)
    most = len(stream.tokens) + UNDER_WAY
    return row is not None and row.outcome != "" and least <= row.completion_tokens <= most


def _without(rows: Sequence[pb.RequestRecord], streams: Sequence[Stream]) -> list[pb.RequestRecord]:
    named = {stream.told.id for stream in streams}
    return [row for row in rows if row.asked_id not in named]
