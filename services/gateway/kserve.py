"""The Open Inference Protocol, version 2, over the same gateway: texts in, texts and counts out.

https://github.com/kserve/open-inference-protocol; of its extensions none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.core.base_model import BaseModel
from services.core.errors import FieldViolation, InvalidRequest
from services.core.types import Constraint, ConstraintKind, RequestId, TenantId
from services.gateway.choices import AskedCompletion, Choices, collect
from services.gateway.course import Adapter
from services.gateway.gateway import Gateway
from services.gateway.sampling import Asked
from services.gateway.tiers import tier_named
from services.runtime.auth import Caller

VERSION = "1"
INPUT = "text_input"
MOST_TEXTS = 128
MAX_TOKENS = 16
"""Where a request does not say, as for OpenAI's completions."""

OUTPUTS = {
    "text_output": "BYTES",
    "finish_reason": "BYTES",
    "prompt_tokens": "INT64",
    "completion_tokens": "INT64",
}
"""Name and datatype; each has one element for every text."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    name: str
    versions: tuple[str, ...]  # that the reference means now; none of a base model
    platform: str


@dataclass(frozen=True, slots=True)
class Inference:
    """`model` may name a version: "pirate", "pirate@2"."""

    model: str
    texts: tuple[str, ...]
    asked: Asked
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    datatype: str
    data: list[str] | list[int]


@dataclass(frozen=True, slots=True)
class Inferred:
    version: str
    outputs: tuple[Tensor, ...]


class Inferences:
    def __init__(self, gateway: Gateway, choices: Choices) -> None:
        self._gateway = gateway
        self._choices = choices

    @property
    def ready(self) -> bool:
        """Whether there is a base model."""
        return self._gateway.serves_models

    async def facts(self, tenant: TenantId, model: str, request_id: RequestId) -> ModelFacts:
        """Raises ModelNotFound."""
        found = await self._gateway.model(tenant, model, request_id)
        name = model.partition("@")[0]
        if isinstance(found, BaseModel):
            return ModelFacts(name, (), "lorikeet_base_model")
        return ModelFacts(name, (str(found.number),), "lorikeet_adapter")

    async def infer(self, caller: Caller, inference: Inference, request_id: RequestId) -> Inferred:
        """All texts side by side, with one version. Cancelling it cancels them."""
        tenant = caller.acting_for("")
        found = await self._gateway.model(tenant, inference.model, request_id)
        asked = AskedCompletion(
            caller, _pinned(inference.model, found), inference.texts, inference.asked
        )
        completions = await self._choices.prepare(asked, request_id)
        done = await collect(self._choices.run(completions, None), count=len(completions))
        values: dict[str, list[str] | list[int]] = {
            "text_output": [choice.text for choice in done],
            "finish_reason": [choice.finish_reason or "" for choice in done],
            "prompt_tokens": [len(completion.job.prompt) for completion in completions],
            "completion_tokens": [choice.completion_tokens for choice in done],
        }
        return Inferred(
            "" if isinstance(found, BaseModel) else str(found.number),
            tuple(Tensor(name, OUTPUTS[name], values[name]) for name in inference.outputs),
        )


def reference(model: str, version: str) -> str:
    """A version in a request is an adapter's version."""
    return f"{model}@{version}" if version else model


def inference(
    model: str,
    texts: Sequence[str],
    parameters: Mapping[str, Any],
    outputs: Sequence[str],
) -> Inference:
    """Raises InvalidRequest that names every wrong field; no outputs: all."""
    wrong = [
        FieldViolation(f"outputs[{index}].name", f"must be one of {', '.join(OUTPUTS)}")
        for index, name in enumerate(outputs)
        if name not in OUTPUTS
    ]
    if not 1 <= len(texts) <= MOST_TEXTS:
        wrong.append(FieldViolation("inputs", f"must hold 1 to {MOST_TEXTS} texts"))
    for name, value in parameters.items():
        if name not in _PARAMETERS:
            said = f"is not supported; there are {', '.join(sorted(_PARAMETERS))}"
            wrong.append(FieldViolation(f"parameters.{name}", said))
        elif _read(_PARAMETERS[name], value) is None:
            said = f"must be a {_PARAMETERS[name].__name__}"
            wrong.append(FieldViolation(f"parameters.{name}", said))
    if wrong:
        raise InvalidRequest(wrong)
    return Inference(model, tuple(texts), _asked(parameters), tuple(outputs) or tuple(OUTPUTS))


def check_input(index: int, name: str, datatype: str, shape: Sequence[int], count: int) -> None:
    """Raises InvalidRequest for an input that is not the one tensor of texts."""
    at = f"inputs[{index}]"
    wrong = []
    if name != INPUT or index > 0:
        wrong.append(FieldViolation(f"{at}.name", f"there is one input, {INPUT}"))
    if datatype != "BYTES":
        wrong.append(FieldViolation(f"{at}.datatype", "must be BYTES"))
    if _elements(shape) != count:
        wrong.append(FieldViolation(f"{at}.shape", f"does not fit the {count} elements"))
    if wrong:
        raise InvalidRequest(wrong)


def _pinned(model: str, found: BaseModel | Adapter) -> str:
    if isinstance(found, BaseModel):
        return model
    return f"{model.partition('@')[0]}@{found.number}"


def _asked(parameters: Mapping[str, Any]) -> Asked:
    values = {name: _read(_PARAMETERS[name], value) for name, value in parameters.items()}
    values.pop("binary_data_output", None)
    kinds = [kind for kind in ConstraintKind if kind.value in values]
    if len(kinds) > 1:
        raise InvalidRequest.of(f"parameters.{kinds[1].value}", "is a second constraint")
    if kinds:
        values["constraint"] = Constraint(kinds[0], values.pop(kinds[0].value))
    if "stop" in values:
        values["stop"] = (values["stop"],)
    if "service_tier" in values:
        tier = tier_named(values["service_tier"], "parameters.service_tier")
        values["service_tier"] = tier
    return Asked(**{"max_tokens": MAX_TOKENS} | values)


def _read(kind: type, value: Any) -> Any:
    """The value as that kind, None if it is another. Protocol buffers of some clients have no
    floating-point parameters: there they may be texts."""
    if kind is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    if isinstance(value, bool):
        return value if kind is bool else None
    if isinstance(value, int):
        return kind(value) if kind in (int, float) and abs(value) < 2**64 else None
    if isinstance(value, float) and kind is int:
        return int(value) if value.is_integer() else None
    return value if isinstance(value, kind) else None


def _elements(shape: Sequence[int]) -> int:
    """-1 for a shape that is none."""
    if not shape or any(size < 0 for size in shape):
        return -1
    count = 1
    for size in shape:
        count = min(count * size, 2**32)
    return count


_PARAMETERS: dict[str, type] = {
    "binary_data_output": bool,  # Triton's clients say that they can do without
    "first_token_within_ms": int,
    "frequency_penalty": float,
    "grammar": str,
    "ignore_eos": bool,
    "json_schema": str,
    "max_tokens": int,
    "min_p": float,
    "presence_penalty": float,
    "regex": str,
    "repetition_penalty": float,
    "seed": int,
    "service_tier": str,
    "share_prefix": bool,
    "stop": str,
    "temperature": float,
    "top_k": int,
    "top_p": float,
}
