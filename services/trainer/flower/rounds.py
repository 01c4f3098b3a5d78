"""The rounds of a federation, from its beginning or its last checkpoint to an adapter."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.core.errors import InvalidRequest
from services.trainer.federated.checking import Limits, checked
from services.trainer.federated.methods import METHODS
from services.trainer.federated.privacy import Privacy, private
from services.trainer.federated.state import State
from services.trainer.federated.words import Arrays, Plan, Update
from services.trainer.federation import MOST_ATTEMPTS, TookPart
from services.trainer.flower.checkpoints import Reached, read_round, write_round
from services.trainer.flower.collecting import Round, chosen
from services.trainer.flower.meaning import adapted, config_of, expected, model_of
from services.trainer.flower.saving import save_adapter
from services.trainer.flower.sites import Answer, Order, Sites
from services.trainer.jobs import Checkpoint, Point
from services.trainer.task import FederatedTask, News, Trained


@dataclass(frozen=True, slots=True)
class Clock:
    """`nap` lets a moment pass."""

    now: Callable[[], float]
    nap: Callable[[], None]


class Rounds:
    """Yields what happens; where nobody is late and no noise is added, the same as if it had never
    been interrupted. A round that is done again draws other noise: nobody has seen the first."""

    def __init__(self, task: FederatedTask, sites: Sites, clock: Clock) -> None:
        self._task = task
        self._federation = task.federation
        self._sites = sites
        self._clock = clock
        self._method = METHODS[task.federation.method]()
        self._model = model_of(adapted(task))

    def run(self) -> Iterator[News]:
        """Raises InvalidRequest if too few take part in a round."""
        reached = self._begun()
        while reached.rounds < self._federation.rounds:
            answers = self._round(reached.state, reached.rounds + 1)
            updates = self._private([_update(each) for each in answers], reached)
            reached = Reached(
                reached.rounds + 1,
                self._method.after(reached.state, updates),
                _took_part(reached.participants, answers),
                {"loss": _loss(answers), "participants": float(len(answers))},
            )
            yield Point(reached.rounds, reached.metrics["loss"])
            yield self._checkpoint(reached)
        yield self._result(reached)

    def _private(self, updates: Sequence[Update], reached: Reached) -> Sequence[Update]:
        """As they may be seen in the result."""
        federation = self._federation
        if not federation.clip_norm:
            return updates
        told = {
            each.client: expected(*self._method.told(reached.state, each.client))
            for each in updates
        }
        return private(
            updates,
            told,
            Privacy(federation.clip_norm, federation.noise_multiplier),
            round=reached.rounds + 1,
            seed=secrets.randbits(64),
        )

    def _begun(self) -> Reached:
        if self._task.checkpoint:
            return read_round(self._task.folder / self._task.checkpoint)
        state = self._method.begin(self._model, config_of(self._task))
        return Reached(0, state, {}, {})

    def _round(self, state: State, number: int) -> list[Answer]:
        """Updates that are good, in the order of their clients' names."""
        names = [each.name for each in self._federation.participants]
        clients = chosen(
            names,
            self._sites.present(),
            self._federation.clients_per_round,
            seed=self._task.config.seed,
            number=number,
        )
        told = {client: self._method.told(state, client) for client in clients}
        this: Round[Answer] = Round(clients, self._federation.quorum)
        for _ in range(MOST_ATTEMPTS):
            self._attempt(this, told, number)
            if this.counts:
                return this.updates()
            missing = this.missing()
            this.again()
        raise InvalidRequest.of(
            "federated.quorum",
            f"round {number} had {len(this.good)} of {this.quorum} updates: {missing}",
        )

    def _attempt(
        self, this: Round[Answer], told: Mapping[str, tuple[Plan, Arrays]], number: int
    ) -> None:
        deadline = self._clock.now() + self._federation.deadline_seconds
        while not this.is_complete and self._clock.now() < deadline:
            asked = this.to_ask(self._sites.present())
            self._sites.ask([Order(each, number, this.attempt, *told[each]) for each in asked])
            for answer in self._sites.answers():
                if answer.round == number:
                    self._hear(this, answer, told)
            if not this.is_complete:
                self._clock.nap()

    def _hear(
        self, this: Round[Answer], answer: Answer, told: Mapping[str, tuple[Plan, Arrays]]
    ) -> None:
        why = answer.refusal
        if not why and answer.client in told:
            first = {answer.client: (answer.round, expected(*told[answer.client]))}
            limits = Limits(norm=self._federation.norm_bound)  # its base, a site checks itself
            why = checked([_update(answer)], first, limits)[1].get(answer.client, "")
        if why:
            this.without(answer.client, why)
        else:
            this.heard(answer.client, answer)

    def _checkpoint(self, reached: Reached) -> Checkpoint:
        name = f"{self._task.prefix}{reached.rounds}.safetensors"
        write_round(self._task.folder / name, reached)
        return Checkpoint(name, reached.rounds, self._federation.rounds)

    def _result(self, reached: Reached) -> Trained:
        name = f"{self._task.prefix}result"
        save_adapter(
            self._task.folder / name,
            self._method.adapter(reached.state),
            base_name=self._task.base.name,
            participants=reached.participants,
        )
        result = Checkpoint(name, reached.rounds, self._federation.rounds)
        return Trained(result, dict(reached.metrics))


def _update(answer: Answer) -> Update:
    return Update(
        client=answer.client,
        round=answer.round,
        attempt=answer.attempt,
        arrays=answer.arrays,
        examples=answer.examples,
        metrics=answer.metrics,
    )


def _loss(answers: list[Answer]) -> float:
    """Of an example."""
    examples = sum(each.examples for each in answers)
    return sum(each.metrics.get("loss", 0.0) * each.examples for each in answers) / examples


def _took_part(before: Mapping[str, TookPart], answers: list[Answer]) -> dict[str, TookPart]:
    after = dict(before)
    for each in answers:
        rounds = before[each.client].rounds if each.client in before else 0
        after[each.client] = TookPart(each.client, each.data_sha256, each.rows, rounds + 1)
    return after
