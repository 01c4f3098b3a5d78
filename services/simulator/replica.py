"""A worker without a model: the production engine, and a runner that makes up tokens and time."""

from collections.abc import Sequence

from services.core.clock import ManualClock
from services.core.types import Digest, SamplingParams
from services.gpu_worker.engine.batcher import Batcher
from services.gpu_worker.engine.engine import Engine, Sampled, Weights
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.engine.plan import StepPlan
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.engine.sequence import EngineRequest
from services.simulator.arrivals import Arrival
from services.simulator.step_time import StepTime

TOKEN = 1
ANY = Sampled(TOKEN)


class CostModelRunner:
    """A step takes what the model says that it takes: the clock moves by so much."""

    def __init__(self, clock: ManualClock, step_time: StepTime) -> None:
        self._clock = clock
        self._step_time = step_time

    def run(self, plan: StepPlan) -> list[Sampled | None]:
        prefill_tokens = decodes = kv_tokens = 0
        for part in plan.slices:
            if part.start < len(part.sequence.request.prompt):
                prefill_tokens += part.count
            else:
                decodes += 1
                kv_tokens += part.start + part.count
        self._clock.advance(self._step_time.seconds(prefill_tokens, decodes, kv_tokens))
        return [ANY if part.samples else None for part in plan.slices]

    def fill(self, weights: Weights, pages: Sequence[int]) -> None:
        """Nothing is there to be copied; how long it takes is for others to say."""

    def bind(self, adapter: Digest, weights: Weights, pages: Sequence[int]) -> None:
        """Slices of this adapter cost what others do."""

    def unbind(self, adapter: Digest) -> None:
        """It left nothing behind."""


def replica(clock: ManualClock, step_time: StepTime, pool: Pool, *, max_sequences: int) -> Engine:
    """`pool`: pages of one token, so that it holds exactly so many. A prompt runs in one step;
    nothing is held back or overtaken but by the policy in front of it."""
    limits = Limits(
        max_step_tokens=pool.size,
        max_sequences=max_sequences,
        max_waiting=max_sequences,
        page_tokens=1,
        patience_steps=2**31,
        watermark=0.0,
        early_abort=False,
    )
    return Engine(
        batcher=Batcher(limits=limits, pool=pool, context_tokens=pool.size + 1),
        runner=CostModelRunner(clock, step_time),
        pool=pool,
        end_tokens=(),
    )


def engine_request(arrival: Arrival, adapter: Digest | None) -> EngineRequest:
    """It reserves, and makes, exactly the tokens that are to come."""
    sampling = SamplingParams(max_tokens=arrival.output_tokens, ignore_eos=True)
    prompt = (TOKEN,) * arrival.request.prompt_tokens
    return EngineRequest(arrival.request.id, prompt, sampling, adapter)


def resumed(arrival: Arrival, made_tokens: int) -> EngineRequest:
    """It goes on elsewhere after so many tokens: what is known of it is its prompt now."""
    sampling = SamplingParams(max_tokens=arrival.output_tokens - made_tokens, ignore_eos=True)
    prompt = (TOKEN,) * (arrival.request.prompt_tokens + made_tokens)
    return EngineRequest(arrival.request.id, prompt, sampling)
