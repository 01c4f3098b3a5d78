"""How long a step of the model takes, without a model."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds by what a step runs. The figures are those of an A10G with Llama-2-7B: a fit to the
    profile that comes with the artifact of VTC (OSDI'24), `cost_profile.json`.
    """

    prefill_seconds: float = 0.003
    """Of every step that runs any part of a prompt."""
    prefill_token_seconds: float = 0.000214
    decode_milliseconds: float = 30.0
    """Of every step that decodes."""
    decode_sequence_milliseconds: float = 0.22
    decode_kv_token_milliseconds: float = 0.0006

    def seconds(self, prefill_tokens: int, decodes: int, kv_tokens: int) -> float:
        """`kv_tokens`: those that the decodes read, all sequences together."""
        prefill = self.prefill_seconds + self.prefill_token_seconds * prefill_tokens
        decode = (
            self.decode_milliseconds
            + self.decode_sequence_milliseconds * decodes
            + self.decode_kv_token_milliseconds * kv_tokens
        )
        return (prefill if prefill_tokens else 0.0) + (decode / 1000 if decodes else 0.0)


A10G = StepTime()
