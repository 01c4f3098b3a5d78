"""What a request takes of a device, in milliseconds, learnt from the steps that the device ran."""

from dataclasses import dataclass

import numpy as np

from services.core.reports import StepTimes
from services.policies.fairness.cost import ProfiledQuadratic

KEEP = 0.999  # of what was learnt before, at every step
FEWEST_STEPS = 32
RIDGE = 1e-9  # of each one's scale: so that what never varied can be fitted at all


@dataclass(frozen=True, slots=True)
class Step:
    """What ran, and how long. `sequences`: prompts and decodes; `read_tokens`: the keys and values
    that the decodes read, all sequences together."""

    prefill_tokens: int
    sequences: int
    read_tokens: int
    milliseconds: float


class StepProfile:
    """Least squares, which forget, of steps' times over what ran in them."""

    def __init__(self) -> None:
        self._moments = np.zeros((4, 4))
        self._products = np.zeros(4)
        self._steps = 0

    def observe(self, step: Step) -> None:
        ran = np.array([1.0, step.prefill_tokens, step.sequences, step.read_tokens])
        self._moments = KEEP * self._moments + np.outer(ran, ran)
        self._products = KEEP * self._products + ran * step.milliseconds
        self._steps += 1

    def cost(self) -> ProfiledQuadratic | None:
        """Marginal milliseconds: of a token of a prompt, of a sequence in a step, and of each
        token that it reads. What a step takes whatever runs is shared by its sequences, so that
        all requests together pay for all of the time. None before enough was seen.
        """
        if self._steps < FEWEST_STEPS:
            return None
        step, prompt_token, sequence, read_token = self._fitted()
        steps, sequences = (float(self._moments[0, of]) for of in (0, 2))
        return ProfiledQuadratic(
            prompt=prompt_token,
            output=sequence + step * steps / max(1.0, sequences),
            product=read_token,
            output_squared=read_token / 2,
            constant=0.0,
        )

    def times(self) -> StepTimes | None:
        """What a step takes by what runs in it; None before enough was seen."""
        if self._steps < FEWEST_STEPS:
            return None
        step, prompt_token, sequence, read_token = self._fitted()
        sequences, read = (float(self._moments[0, of]) for of in (2, 3))
        return StepTimes(step, sequence + read_token * read / max(1.0, sequences), prompt_token)

    def _fitted(self) -> list[float]:
        """None below 0: nothing that runs saves time, and a charge below 0 would be a gift."""
        found = np.zeros(4)
        kept = np.flatnonzero(np.diag(self._moments))
        while len(kept):
            moments = self._moments[np.ix_(kept, kept)]
            scale = np.sqrt(np.diag(moments))
            normal = moments / np.outer(scale, scale) + RIDGE * np.eye(len(kept))
            solved = np.linalg.solve(normal, self._products[kept] / scale)
            if solved.min() >= 0:
                found[kept] = solved / scale
                break
            kept = np.delete(kept, solved.argmin())
        return [float(each) for each in found]
