"""Messages that several services share, to and from the domain's types."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from lorikeet.types.v1 import adapter_pb2, tier_pb2
from lorikeet.types.v1 import generation_pb2 as pb
from services.core.base_model import BaseModel, Module
from services.core.errors import InvalidRequest
from services.core.types import (
    BatchFacts,
    Constraint,
    ConstraintKind,
    Fingerprint,
    FinishReason,
    PositionLogprobs,
    SamplingParams,
    Tier,
    TokenLogprob,
    TokenRules,
)

_FINISH = {
    None: pb.FINISH_REASON_UNSPECIFIED,
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.TOOL_CALLS: pb.FINISH_REASON_TOOL_CALLS,
}
_FINISH_BACK = {wire: reason for reason, wire in _FINISH.items()}

_TIERS = {
    None: tier_pb2.SERVICE_TIER_UNSPECIFIED,
    Tier.PRIORITY: tier_pb2.SERVICE_TIER_PRIORITY,
    Tier.DEFAULT: tier_pb2.SERVICE_TIER_DEFAULT,
    Tier.FLEX: tier_pb2.SERVICE_TIER_FLEX,
}
_TIERS_BACK = {wire: tier for tier, wire in _TIERS.items()}


def finish_to_wire(reason: FinishReason | None) -> pb.FinishReason.ValueType:
    return _FINISH[reason]


def finish_from_wire(reason: pb.FinishReason.ValueType) -> FinishReason | None:
    return _FINISH_BACK[reason]


def tier_to_wire(tier: Tier | None) -> tier_pb2.ServiceTier.ValueType:
    return _TIERS[tier]


def tier_from_wire(
    tier: tier_pb2.ServiceTier.ValueType, field: str = "service_tier"
) -> Tier | None:
    """None for none. Raises InvalidRequest for one that is not known."""
    if tier not in _TIERS_BACK:
        raise InvalidRequest.of(field, "is not known")
    return _TIERS_BACK[tier]


def sampling_to_wire(sampling: SamplingParams) -> pb.SamplingParams:
    rules = sampling.values()
    constraint: Constraint | None = rules.pop("constraint")
    return pb.SamplingParams(
        max_tokens=sampling.max_tokens,
        seed=sampling.seed,
        constraint=None
        if constraint is None
        else pb.Constraint(**{constraint.kind.value: constraint.text}),
        logit_bias=dict(rules.pop("logit_bias")),
        **rules,
    )


def sampling_from_wire(message: pb.SamplingParams) -> SamplingParams:
    """For a message whose max_tokens and seed are set."""
    return SamplingParams(
        max_tokens=message.max_tokens, seed=message.seed, **rules_from_wire(message).values()
    )


def rules_from_wire(message: pb.SamplingParams) -> TokenRules:
    kind = message.constraint.WhichOneof("kind")
    return TokenRules(
        temperature=message.temperature if message.HasField("temperature") else 1.0,
        top_p=message.top_p if message.HasField("top_p") else 1.0,
        top_k=message.top_k,
        min_p=message.min_p,
        repetition_penalty=(
            message.repetition_penalty if message.HasField("repetition_penalty") else 1.0
        ),
        presence_penalty=message.presence_penalty,
        frequency_penalty=message.frequency_penalty,
        logit_bias=tuple(sorted(message.logit_bias.items())),
        stop=tuple(message.stop),
        stop_tokens=tuple(message.stop_tokens),
        ignore_eos=message.ignore_eos,
        logprobs=message.logprobs,
        top_logprobs=message.top_logprobs,
        constraint=None
        if kind is None
        else Constraint(ConstraintKind(kind), getattr(message.constraint, kind)),
    )


def logprobs_to_wire(position: PositionLogprobs) -> pb.PositionLogprobs:
    return pb.PositionLogprobs(
        chosen=pb.TokenLogprob(token=position.chosen.token, logprob=position.chosen.logprob),
        top=[pb.TokenLogprob(token=top.token, logprob=top.logprob) for top in position.top],
    )


def logprobs_from_wire(message: pb.PositionLogprobs) -> PositionLogprobs:
    return PositionLogprobs(
        chosen=TokenLogprob(message.chosen.token, message.chosen.logprob),
        top=tuple(TokenLogprob(top.token, top.logprob) for top in message.top),
    )


def batch_to_wire(facts: BatchFacts) -> pb.BatchFacts:
    return pb.BatchFacts(peak_sequences=facts.peak_sequences, peak_adapters=facts.peak_adapters)


def batch_from_wire(message: pb.BatchFacts) -> BatchFacts:
    return BatchFacts(message.peak_sequences, message.peak_adapters)


def base_model_to_wire(model: BaseModel, *, with_tokenizer: bool = True) -> adapter_pb2.BaseModel:
    return adapter_pb2.BaseModel(
        name=model.name,
        also_known_as=model.also_known_as,
        fingerprint=model.fingerprint,
        architecture=model.architecture,
        context_tokens=model.context_tokens,
        vocabulary_tokens=model.vocabulary_tokens,
        end_tokens=model.end_tokens,
        chat_template=model.chat_template,
        special_tokens=model.special_tokens,
        modules=[
            adapter_pb2.Module(
                path=module.path,
                site=module.site,
                in_features=module.in_features,
                out_features=module.out_features,
            )
            for module in model.modules
        ],
        tokenizer_json=model.tokenizer_json if with_tokenizer else b"",
        create_time=None if model.created is None else time_to_wire(model.created),
        head_dim=model.head_dim,
    )


def base_model_from_wire(message: adapter_pb2.BaseModel) -> BaseModel:
    return BaseModel(
        name=message.name,
        also_known_as=tuple(message.also_known_as),
        fingerprint=Fingerprint(message.fingerprint),
        architecture=message.architecture,
        context_tokens=message.context_tokens,
        vocabulary_tokens=message.vocabulary_tokens,
        end_tokens=tuple(message.end_tokens),
        chat_template=message.chat_template,
        special_tokens=dict(message.special_tokens),
        modules=tuple(
            Module(module.path, module.site, module.in_features, module.out_features)
            for module in message.modules
        ),
        tokenizer_json=message.tokenizer_json,
        created=(message.create_time.ToDatetime(UTC) if message.HasField("create_time") else None),
        head_dim=message.head_dim,
    )


def time_to_wire(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
