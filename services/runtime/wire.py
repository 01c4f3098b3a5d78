"""Messages that several services share, to and from the domain's types."""

from lorikeet.types.v1 import generation_pb2 as pb
from services.core.types import (
    BatchFacts,
    FinishReason,
    PositionLogprobs,
    SamplingParams,
    TokenLogprob,
)

_FINISH = {
    None: pb.FINISH_REASON_UNSPECIFIED,
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
}
_FINISH_BACK = {wire: reason for reason, wire in _FINISH.items()}


def finish_to_wire(reason: FinishReason | None) -> pb.FinishReason.ValueType:
    return _FINISH[reason]


def finish_from_wire(reason: pb.FinishReason.ValueType) -> FinishReason | None:
    return _FINISH_BACK[reason]


def sampling_to_wire(sampling: SamplingParams) -> pb.SamplingParams:
    return pb.SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=sampling.seed,
        stop=sampling.stop,
        ignore_eos=sampling.ignore_eos,
        logprobs=sampling.logprobs,
        top_logprobs=sampling.top_logprobs,
    )


def sampling_from_wire(message: pb.SamplingParams) -> SamplingParams:
    """For a message whose max_tokens and seed are set."""
    return SamplingParams(
        max_tokens=message.max_tokens,
        temperature=message.temperature if message.HasField("temperature") else 1.0,
        top_p=message.top_p if message.HasField("top_p") else 1.0,
        top_k=message.top_k,
        seed=message.seed,
        stop=tuple(message.stop),
        ignore_eos=message.ignore_eos,
        logprobs=message.logprobs,
        top_logprobs=message.top_logprobs,
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
