"""What a request takes of a device, in milliseconds, learnt from the steps that the device ran."""

from dataclasses import dataclass

from services.core.reports import StepTimes
from services.policies.fairness.cost import ProfiledQuadratic
from services.policies.regression import Regression

KEEP = 0.999  # of what was learnt before, at every step
FEWEST_STEPS = 32


@dataclass(frozen=True, slots=True)
class Step:
    """What ran, and how long. `sequences`: prompts and decodes; `read_tokens`: the keys and values
    that the decodes read, all sequences together."""

    prefill_tokens: int
    sequences: int
    read_tokens: int
    milliseconds: float


class StepProfile:
    """Steps' times over what ran in them."""

    def __init__(self) -> None:
        self._fit = Regression(4, KEEP)

    def observe(self, step: Step) -> None:
        ran = (1.0, step.prefill_tokens, step.sequences, step.read_tokens)
        self._fit.observe(ran, step.milliseconds)

    def cost(self) -> ProfiledQuadratic | None:
        """Marginal milliseconds: of a token of a prompt, of a sequence in a step, and of each
        token that it reads. What a step takes whatever runs is shared by its sequences, so that
        all requests together pay for all of the time. None before enough was seen.
        """
        if self._fit.observations < FEWEST_STEPS:
            return None
        step, prompt_token, sequence, read_token = self._fit.weights()
        steps, sequences = (self._fit.sum(of) for of in (0, 2))
        return ProfiledQuadratic(
            prompt=prompt_token,
            output=sequence + step * steps / max(1.0, sequences),
            product=read_token,
            output_squared=read_token / 2,
            constant=0.0,
        )

    def times(self) -> StepTimes | None:
        """What a step takes by what runs in it; None before enough was seen."""
        if self._fit.observations < FEWEST_STEPS:
            return None
        step, prompt_token, sequence, read_token = self._fit.weights()
        sequences, read = (self._fit.sum(of) for of in (2, 3))
        return StepTimes(step, sequence + read_token * read / max(1.0, sequences), prompt_token)
