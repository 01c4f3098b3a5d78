"""Requests that cannot have their first token in time are told so at once."""

from collections.abc import Iterable, Iterator

from services.core.errors import TooLate
from services.gpu_worker.engine.sequence import Sequence
from services.policies.first_token import RATE, Forecast, Holder, StepTimes


class Punctuality:
    """Early abort (S-LoRA, section 4.2) in order of arrival, by what steps and loads take here."""

    def __init__(self, step_tokens: int, default_seconds: float) -> None:
        self._times = StepTimes()
        self._step_tokens = step_tokens
        self._default_seconds = default_seconds
        self._load_seconds = 0.0
        self._missed: dict[Sequence, float] = {}  # since when an adapter has been waited for
        self._begun: tuple[float, int] | None = None

    def step_begins(self, now: float) -> None:
        """Steps follow each other at once while there is work: the last one's time is known."""
        if self._begun is not None:
            began, tokens = self._begun
            self._times.observe(tokens, now - began)
        self._begun = None

    def step_runs(self, now: float, tokens: int) -> None:
        self._begun = (now, tokens) if tokens else None

    def limit(self, sequence: Sequence) -> float:
        """Seconds from its arrival; 0 if it can wait for ever."""
        own = sequence.request.first_token_within
        return self._default_seconds if own is None else own

    def late(
        self,
        waiting: Iterable[tuple[Sequence, Holder, bool]],
        running: list[Holder],
        *,
        free_pages: int,
        free_slots: int,
        now: float,
    ) -> Iterator[tuple[Sequence, TooLate]]:
        """`waiting`: in order, with what each will hold and whether its adapter is there.

        Who is late stands before nobody any more. Who has made tokens already is not asked.
        """
        forecast = Forecast(
            running,
            free_pages=free_pages,
            free_slots=free_slots,
            step_tokens=self._step_tokens,
            times=self._times,
        )
        for sequence, holder, is_resident in waiting:
            arrival = self._adapter_wait(sequence, is_resident, now)
            ahead = max(forecast.seconds(holder), arrival)
            limit = self.limit(sequence)
            if limit and not sequence.generated and now - sequence.arrived_at + ahead > limit:
                self._missed.pop(sequence, None)
                yield sequence, TooLate("the first token would come too late", ahead)
            else:
                forecast.admit(holder)

    def forget(self, sequence: Sequence) -> None:
        """It waits no more."""
        self._missed.pop(sequence, None)

    def _adapter_wait(self, sequence: Sequence, is_resident: bool, now: float) -> float:
        """Seconds until the adapter is expected; learnt from those that came."""
        if not is_resident:
            since = self._missed.setdefault(sequence, now)
            return max(0.0, self._load_seconds - (now - since))
        since = self._missed.pop(sequence, now)
        if since < now:
            self._load_seconds += 4 * RATE * (now - since - self._load_seconds)
        return 0.0
