"""Bodies of the Open Inference Protocol over HTTP."""

from typing import Any

from pydantic import BaseModel, Field

from services.gateway.openai_fields import Fields, Whole


class InputTensor(Fields):
    name: str = Field(description="text_input.")
    shape: list[Whole] = Field(description="As many elements as there are texts.")
    datatype: str = Field(description="BYTES.")
    parameters: dict[str, Any] = Field({}, description="Ignored.")
    data: list[Any] = Field(description="Texts; lists of them are flattened.")


class OutputTensor(Fields):
    name: str = Field(description="text_output, finish_reason, prompt_tokens or completion_tokens.")
    parameters: dict[str, Any] = Field({}, description="Ignored.")


class InferRequest(Fields):
    id: str = Field("", description="Comes back in the answer.")
    parameters: dict[str, Any] = Field(
        {},
        description="max_tokens, temperature, top_p, top_k, min_p, seed, stop, presence_penalty, "
        "frequency_penalty, repetition_penalty, ignore_eos, json_schema, regex, grammar, "
        "first_token_within_ms, share_prefix, service_tier: as in chat completions.",
    )
    inputs: list[InputTensor] = Field(json_schema_extra={"minItems": 1, "maxItems": 1})
    outputs: list[OutputTensor] = Field([], description="None: all.")


class AnsweredTensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    data: list[str] | list[int]


class InferResponse(BaseModel):
    model_name: str
    model_version: str | None = Field(None, description="Of an adapter.")
    id: str
    outputs: list[AnsweredTensor]


class TensorFacts(BaseModel):
    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    name: str
    versions: list[str] = Field(description="Of an adapter: the one that the name means now.")
    platform: str
    inputs: list[TensorFacts]
    outputs: list[TensorFacts]


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    ready: bool


class ModelReady(BaseModel):
    name: str
    ready: bool


class KserveError(BaseModel):
    error: str
