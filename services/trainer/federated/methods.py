"""Every method of federated training, by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from services.trainer.federated.config import FederatedConfig
from services.trainer.federated.exact import FedEx, FlexLora, Flora
from services.trainer.federated.lora import FedIt
from services.trainer.federated.one_factor import FedSa, Ffa
from services.trainer.federated.staged import Full, KeepSparse, Sparse, Switched
from services.trainer.federated.state import State
from services.trainer.federated.words import Arrays, Factors, Model, Plan, Update


class Method(Protocol):
    """The server's half."""

    def begin(self, model: Model, config: FederatedConfig) -> State: ...

    def told(self, state: State, client: str) -> tuple[Plan, Arrays]:
        """What a client is to do in the next round, and what it is sent for it."""
        ...

    def after(self, state: State, updates: Sequence[Update]) -> State:
        """The round is done; updates are those that were checked. Raises InvalidRequest."""
        ...

    def adapter(self, state: State) -> dict[str, Factors]:
        """What would be published now, by layer."""
        ...


METHODS: Mapping[str, Callable[[], Method]] = {
    "flexlora": FlexLora,
    "fedit": FedIt,
    "slora": lambda: Switched(Sparse()),
    "ffa": Ffa,
    "flora": Flora,
    "fedex": FedEx,
    "fedsa": FedSa,
    "primed": lambda: Switched(Full()),
    "keep-sparse": KeepSparse,
    "sparse": Sparse,
    "full": Full,
}
DEFAULT = "flexlora"
