"""How long outputs are expected to be, learnt from those that ended."""

from services.gpu_worker.engine.sequence import Sequence

LEARNING_RATE = 0.05
MARGIN = 1.25  # more than is expected, so that few have to give way


class Lengths:
    def __init__(self, context_tokens: int) -> None:
        self._context_tokens = context_tokens
        self._expected_share = 1.0  # of max_tokens

    @property
    def share(self) -> float:
        """Of max_tokens, that an output is given room for."""
        return min(1.0, MARGIN * self._expected_share)

    def ended(self, sequence: Sequence) -> None:
        share = sequence.generated / sequence.request.sampling.max_tokens
        self._expected_share += LEARNING_RATE * (share - self._expected_share)

    def end_of(self, sequence: Sequence) -> int:
        """Length at which the sequence ends for want of tokens or context."""
        request = sequence.request
        return min(len(request.prompt) + request.sampling.max_tokens, self._context_tokens)

    def steps_left(self, sequence: Sequence) -> int:
        """Until it is expected to end."""
        most = self.end_of(sequence) - len(sequence.tokens)
        expected = sequence.request.sampling.max_tokens * self._expected_share
        return max(1, min(most, round(expected) - sequence.generated))

    def expected(self, sequence: Sequence) -> int:
        """Tokens that it is expected to come to; all it can if it was wrong once."""
        share = 1.0 if sequence.preempted else self.share
        left = self.end_of(sequence) - len(sequence.tokens)
        return len(sequence.tokens) + max(1, round(left * share))
