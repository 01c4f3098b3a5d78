"""LoRA on data that is all in one place: the loop, and all of its state."""

import math
from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from services.core.errors import InvalidRequest
from services.trainer.durable import make_durable
from services.trainer.jobs import Checkpoint, Point
from services.trainer.task import News, Task, Trained
from services.trainer.training.checkpoints import Progress, read_checkpoint, write_checkpoint
from services.trainer.training.encoding import Encoded
from services.trainer.training.measuring import HeldOut
from services.trainer.training.network import Network
from services.trainer.training.packing import Pack, steps, total_steps


class Training:
    """Yields what happens; the same task yields the same, wherever it was begun again."""

    def __init__(
        self, task: Task, network: Network, learnt: Sequence[Encoded], held_out: HeldOut
    ) -> None:
        self._task = task
        self._config = task.config
        self._network = network
        self._learnt = learnt
        self._held_out = held_out
        self._lengths = [len(each.tokens) for each in learnt]
        self._total = total_steps(self._lengths, task.config)
        self._parameters = list(network.parameters.values())
        self._optimiser = torch.optim.AdamW(self._parameters, weight_decay=0.0)
        self._progress = Progress()
        self._best: dict[str, Tensor] = {}

    def run(self) -> Iterator[News]:
        """Raises InvalidRequest if what is learnt has no finite loss."""
        if self._task.checkpoint:
            self._resume()
        done = self._progress
        for packs in islice(steps(self._lengths, self._config), done.steps, self._total):
            if self._is_over:
                break
            loss = self._step(packs)
            done.steps += 1
            yield Point(done.steps, loss, *self._measured())
            if done.steps % self._config.checkpoint_steps == 0 or self._is_over:
                yield self._checkpoint()
        yield self._result()

    @property
    def _is_over(self) -> bool:
        patience = self._config.patience
        too_late = bool(patience) and self._progress.worse >= patience
        return too_late or self._progress.steps >= self._total

    def _step(self, packs: Sequence[Pack]) -> float:
        """One step of the optimiser: the mean over all tokens that its packs are to predict."""
        self._network.learning(True)
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate()
        targets = sum(self._learnt[index].targets for pack in packs for index in pack)
        whole = 0.0
        for pack in packs:
            losses, _ = self._network.losses([self._learnt[index] for index in pack])
            loss = losses.sum() / targets
            whole += self._finite(loss, [pack])
            loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._config.max_gradient_norm)
        self._finite(norm, packs)
        self._optimiser.step()
        self._optimiser.zero_grad()
        return whole

    def _rate(self) -> float:
        """Up in a line, then down along a cosine."""
        step, warmup = self._progress.steps, self._config.warmup_steps
        if step < warmup:
            return self._config.learning_rate * (step + 1) / warmup
        share = (step - warmup) / max(1, self._total - warmup)
        return self._config.learning_rate * (1 + math.cos(math.pi * share)) / 2

    def _finite(self, value: Tensor, packs: Sequence[Pack]) -> float:
        found = value.item()
        if not math.isfinite(found):
            lines = sorted({self._learnt[index].line for pack in packs for index in pack})
            shown = ", ".join(map(str, lines[:20])) + (", ..." if len(lines) > 20 else "")
            raise InvalidRequest.of(
                "data",
                f"{self._task.data_name}:{lines[0]}: the loss is {found} at step "
                f"{self._progress.steps + 1}, which learns from the lines {shown}; a lower "
                "learning rate may help",
            )
        return found

    def _measured(self) -> tuple[float | None, float | None]:
        """Loss and accuracy on what is held out, if it is time to; and what follows from them."""
        done, every = self._progress, self._config.evaluate_steps
        is_time = done.steps == self._total or (every and done.steps % every == 0)
        if not self._held_out or not is_time:
            return None, None
        loss, accuracy = self._held_out.measure(self._network)
        done.metrics = {"validation_loss": loss}
        if accuracy is not None:
            done.metrics["accuracy"] = accuracy
        if done.best is None or loss < done.best:
            done.best, done.best_step, done.worse = loss, done.steps, 0
            if self._config.patience:
                parameters = self._network.parameters.items()
                self._best = {name: each.detach().clone() for name, each in parameters}
        else:
            done.worse += 1
        return loss, accuracy

    def _checkpoint(self) -> Checkpoint:
        done = self._progress
        name = f"{self._task.prefix}{done.steps}.safetensors"
        weights = {f"adapter.{n}": each for n, each in self._network.parameters.items()}
        best = {f"best.{name}": tensor for name, tensor in self._best.items()}
        moments = {
            f"optimiser.{index}.{key}": value
            for index, state in self._optimiser.state_dict()["state"].items()
            for key, value in state.items()
        }
        write_checkpoint(self._task.folder / name, done, weights | best | moments)
        return Checkpoint(name, done.steps, self._total)

    def _resume(self) -> None:
        self._progress, tensors = read_checkpoint(self._task.folder / self._task.checkpoint)
        parts: dict[str, dict[str, Tensor]] = {"adapter": {}, "best": {}, "optimiser": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self._network.load(parts["adapter"])
        self._best = {name: each.to(self._network.device) for name, each in parts["best"].items()}
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimiser"].items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = tensor
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": state, "param_groups": groups})

    def _result(self) -> Trained:
        """The best weights if it may stop early, else the last."""
        done = self._progress
        if self._best:
            self._network.load(self._best)
        name = f"{self._task.prefix}result"
        folder = self._task.folder / name
        self._network.save(folder)
        for path in (*folder.iterdir(), folder, self._task.folder):
            make_durable(path)
        metrics = dict(done.metrics)
        if self._best and done.best is not None:
            metrics |= {"validation_loss": done.best, "best_step": float(done.best_step)}
        return Trained(Checkpoint(name, done.steps, self._total), metrics)
