"""How good an adapter is on examples that it did not learn from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from services.trainer.training.encoding import Encoded
from services.trainer.training.network import Network
from services.trainer.training.packing import pack


@dataclass(frozen=True, slots=True)
class HeldOut:
    """`choices`: for classification, every label as the answer to each example, and in `right` the
    index of the true one."""

    examples: Sequence[Encoded]
    pack_tokens: int
    choices: Sequence[Sequence[Encoded]] = ()
    right: Sequence[int] = ()

    def __bool__(self) -> bool:
        return bool(self.examples)

    def measure(self, network: Network) -> tuple[float, float | None]:
        """Mean loss of a token; and how many labels are right, for classification."""
        network.learning(False)
        losses = self._sums(network, self.examples)
        loss = losses.sum().item() / sum(each.targets for each in self.examples)
        if not self.choices:
            return loss, None
        flat = [choice for choices in self.choices for choice in choices]
        by_label = self._sums(network, flat).view(len(self.choices), -1)
        found = by_label.argmin(dim=1).tolist()
        right = sum(a == b for a, b in zip(found, self.right, strict=True))
        return loss, right / len(self.right)

    @torch.no_grad()
    def _sums(self, network: Network, examples: Sequence[Encoded]) -> Tensor:
        """The loss of each, over its tokens."""
        lengths = [len(each.tokens) for each in examples]
        sums = torch.zeros(len(examples), dtype=torch.float64)
        for members in pack(lengths, range(len(examples)), self.pack_tokens):
            losses, owners = network.losses([examples[index] for index in members])
            places = torch.tensor(members)[owners.cpu()]
            sums.index_add_(0, places, losses.double().cpu())
        return sums


def with_label(example: Encoded, label: Sequence[int]) -> Encoded:
    """The same question, answered so."""
    return replace(example, tokens=(*example.tokens[: example.learnt], *label))
