"""Linear layers with something added to them, which alone is trained; the base is only read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from services.core.errors import InvalidRequest
from services.trainer.federated.lora import first_a
from services.trainer.federated.masks import mask
from services.trainer.federated.words import HEAD, Array, Arrays, Kind, Layer, Model, Plan

TRAINED = {Kind.FULL: ("D",), Kind.SPARSE: ("S",), Kind.LORA: ("A", "B")}


class Adapted(nn.Module):
    """`own`: D, S, or A and B, of which those that `trained` names learn; of what was `given` FA,
    FB, and S beside A and B, are added as they are. What is added is float32, whatever the base
    is."""

    def __init__(
        self, base: nn.Linear, layer: Layer, plan: Plan, given: Mapping[str, Tensor]
    ) -> None:
        super().__init__()
        self._base = (base.weight.detach(), None if base.bias is None else base.bias.detach())
        self._plan = plan
        self._positions = None
        if "S" in given:
            self._positions = torch.from_numpy(mask(layer, plan.density, plan.seed)).to(
                base.weight.device
            )
        trained = set(TRAINED[plan.kind]) - ({"A"} if plan.freeze_a else set())
        self.own = nn.ParameterDict(
            {
                name: nn.Parameter(value, requires_grad=name in trained)
                for name, value in given.items()
            }
        )

    @property
    def weight(self) -> Tensor:
        """Of the base, with D or S; what no mask has is bit for bit the base's."""
        weight, own = self._base[0], self.own
        if "D" in own:
            weight = weight + own["D"]
        if self._positions is not None:
            flat = weight.float().reshape(-1)
            there = flat[self._positions] + own["S"]
            weight = flat.index_put((self._positions,), there).reshape(weight.shape)
        return weight

    def forward(self, x: Tensor) -> Tensor:
        own, weight, bias = self.own, self.weight, self._base[1]
        bias = None if bias is None else bias.to(weight.dtype)
        y, wide = F.linear(x.to(weight.dtype), weight, bias), x.float()
        if "A" in own:
            low = F.linear(wide, own["A"])
            y = y + self._plan.alpha / self._plan.rank * F.linear(low, own["B"])
        if "FA" in own:
            y = y + F.linear(F.linear(wide, own["FA"]), own["FB"])
        return y.to(x.dtype)


@contextmanager
def adapted(
    module: nn.Module, model: Model, plan: Plan, arrays: Arrays
) -> Iterator[dict[str, nn.Parameter]]:
    """What learns, by name; afterwards the module is as it was, byte for byte. Raises KeyError for
    an array that is missing, InvalidRequest for a layer that is not linear."""
    linears = {layer.name: module.get_submodule(layer.name) for layer in model.layers}
    head = {name: module.get_parameter(name.removeprefix(HEAD)) for name in sorted(model.head)}
    before = {name: parameter.detach().clone() for name, parameter in head.items()}
    frozen = [each for each in module.parameters() if each.requires_grad]
    try:
        for each in frozen:
            each.requires_grad_(False)
        learning: dict[str, nn.Parameter] = {}
        for layer in model.layers:
            base = linears[layer.name]
            if not isinstance(base, nn.Linear):
                raise InvalidRequest.of(layer.name, f"is a {type(base).__name__}, not linear")
            given = _given(layer, plan, arrays, base.weight.device)
            into = Adapted(base, layer, plan, given)
            module.set_submodule(layer.name, into)
            learning |= {f"{layer.name}.{n}": p for n, p in into.own.items() if p.requires_grad}
        for name, parameter in head.items():
            if name in arrays:
                parameter.data.copy_(torch.from_numpy(arrays[name]))
            parameter.requires_grad_(True)
            learning[name] = parameter
        yield learning
    finally:
        for name, linear in linears.items():
            module.set_submodule(name, linear)
        for name, parameter in head.items():
            parameter.data.copy_(before[name])
        for each in module.parameters():
            each.requires_grad_(False)
            each.grad = None
        for each in frozen:
            each.requires_grad_(True)


def _given(layer: Layer, plan: Plan, arrays: Arrays, device: torch.device) -> dict[str, Tensor]:
    """Of one layer, by side; A from the seed where it does not travel, B from nothing."""
    found: dict[str, Array] = {}
    for side in ("D", "S", "A", "B", "FA", "FB"):
        array = arrays.get(f"{layer.name}.{side}")
        if array is not None:
            found[side] = array
    for side in TRAINED[plan.kind]:
        if side not in found and side == "A" and plan.freeze_a:
            found["A"] = first_a(layer, plan.rank, plan.seed)
        elif side not in found and side == "B" and plan.keep_b:
            found["B"] = first_b(layer, plan)
        elif side not in found:
            raise KeyError(f"{layer.name}.{side}")
    return {side: torch.from_numpy(array.copy()).to(device) for side, array in found.items()}


def first_b(layer: Layer, plan: Plan) -> Array:
    """Of a client that has none yet."""
    return torch.zeros(layer.rows, plan.rank).numpy()
