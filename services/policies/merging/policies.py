"""What a worker may be told to do about merging."""

from collections.abc import Callable, Mapping

from services.policies.merging.banded import Banded, Rules
from services.policies.merging.batches import Policy
from services.policies.merging.fixed import Mixed

FOLD_COST = 5.0  # steps: all of the weights are read and written, where a step only reads them

POLICIES: Mapping[str, Callable[[int], Policy]] = {
    "auto": lambda seats: Banded(
        Rules(
            seats,
            pauses=False,
            switch_ms=0.0,
            switch_steps=FOLD_COST,
            back=0.2,  # the own weights are there, but may soon have to be left again
            pointless=0.97,
        )
    ),
    "always": Mixed,
}
"""By name, for so many seats. auto: where it was measured to pay, and nobody waits for it. always:
whether it pays or not."""
