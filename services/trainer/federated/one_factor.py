"""Methods in which one factor alone travels."""

from dataclasses import replace

from services.trainer.federated.lora import FedIt, lora_plan
from services.trainer.federated.state import State
from services.trainer.federated.words import Arrays, Factors, Plan


class Ffa(FedIt):
    """A stays as the seed gives it, for all (arXiv 2403.12313): the mean is exact, noise is linear,
    half travels."""

    def told(self, state: State, client: str) -> tuple[Plan, Arrays]:
        return replace(lora_plan(state.config), freeze_a=True), _without(".A", state.arrays)


class FedSa(FedIt):
    """A is shared, B and the head stay with each client (arXiv 2410.01463), who has an adapter of
    its own in the end: what `adapter` gives adds nothing, `adapter_of` is for one client."""

    def told(self, state: State, client: str) -> tuple[Plan, Arrays]:
        shared = {name: array for name, array in state.arrays.items() if name.endswith(".A")}
        return replace(lora_plan(state.config), keep_b=True), shared

    def adapter_of(self, state: State, kept: Arrays) -> dict[str, Factors]:
        """With the B that a client has `kept`."""
        return self.adapter(replace(state, arrays={**state.arrays, **kept}))


def _without(ending: str, arrays: Arrays) -> Arrays:
    return {name: array for name, array in arrays.items() if not name.endswith(ending)}
