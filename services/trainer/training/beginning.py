"""From a task to a training that can begin, or go on."""

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA is loaded

import torch

from services.core.errors import InvalidRequest
from services.trainer.examples import read_examples
from services.trainer.jobs import DataKind
from services.trainer.task import Task
from services.trainer.training.centralised import Training
from services.trainer.training.encoding import Encoded, Encoder
from services.trainer.training.measuring import HeldOut, with_label
from services.trainer.training.network import Network, load_base
from services.trainer.training.packing import held_out


def begin(task: Task) -> Training:
    """Raises InvalidRequest that names file and line of what cannot be learnt."""
    learnt, measured = _encoded(task)
    if task.threads:
        torch.set_num_threads(task.threads)
    device = torch.device(_device(task.device))
    torch.use_deterministic_algorithms(True, warn_only=True)
    base = load_base(task.base.path, device)
    torch.manual_seed(task.config.seed)
    network = Network(base, task.config, base_name=task.base.name)
    return Training(task, network, learnt, measured)


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def _encoded(task: Task) -> tuple[list[Encoded], HeldOut]:
    """What is learnt, and what is held out."""
    config = task.config
    _, examples = read_examples(task.data, task.data_name)
    encoder = Encoder(task.base, name=task.data_name, most_tokens=config.pack_tokens)
    pairs = [(example.target, encoder.encode(example)) for example in examples]
    apart = held_out([each.line for _, each in pairs], config)
    learnt = [each for _, each in pairs if each.line not in apart]
    measured = [(target, each) for target, each in pairs if each.line in apart]
    if not learnt:
        raise InvalidRequest.of("data", f"{task.data_name}: has nothing to learn from")
    encoded = [each for _, each in measured]
    if task.kind is not DataKind.CLASSIFICATION:
        return learnt, HeldOut(encoded, config.pack_tokens)
    answers = {target: each.tokens[each.learnt :] for target, each in pairs}
    labels = sorted(answers)
    return learnt, HeldOut(
        encoded,
        config.pack_tokens,
        [[with_label(each, answers[label]) for label in labels] for each in encoded],
        [labels.index(target) for target, _ in measured],
    )
