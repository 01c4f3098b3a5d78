"""What a client does to a network, and that it does nothing else to it."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from services.core.errors import InvalidRequest
from services.trainer.federated.config import FederatedConfig
from services.trainer.federated.local.adapted import adapted
from services.trainer.federated.local.training import Trained, train
from services.trainer.federated.lora import first_a
from services.trainer.federated.masks import mask
from services.trainer.federated.methods import METHODS
from services.trainer.federated.one_factor import FedSa
from services.trainer.federated.words import Arrays, Layer, Model, Plan, Update

LAYERS = Layer("0", 12, 6), Layer("2", 10, 12)
CONFIG = FederatedConfig(
    rank=3, alpha=6.0, density=0.2, first_rounds=1, steps=4, learning_rate=0.05
)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 3)
    )


def model_of(module: nn.Module) -> Model:
    head = {f"head.4.{n}": getattr(module.get_submodule("4"), n).detach().numpy().copy()
            for n in ("weight", "bias")}  # fmt: skip
    return Model(LAYERS, head)


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    while True:
        x = torch.randn(8, 6, generator=draw)
        yield x, (x.sum(1) > 0).long()


def trained(module: nn.Module, plan: Plan, arrays: Arrays) -> Trained:
    def loss_of(batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(module(batch[0]), batch[1])

    return train(module, model_of(module), plan, arrays, batches(), loss_of=loss_of)


def bytes_of(module: nn.Module) -> str:
    found = hashlib.sha256()
    for name, parameter in sorted(module.state_dict().items()):
        found.update(name.encode() + parameter.numpy().tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_and_leaves_the_base_as_it_was(name: str) -> None:
    """Over rounds, by the client's half and the server's; one client, so nothing else disturbs."""
    module, method = network(), METHODS[name]()
    before, losses = bytes_of(module), []
    state = method.begin(model_of(module), CONFIG)
    kept: Arrays = {}
    for number in range(5):
        plan, sent = method.told(state, "a")
        done = trained(module, plan, {**sent, **kept})
        assert bytes_of(module) == before
        assert all(parameter.requires_grad for parameter in module.parameters())
        kept = done.kept
        losses.append(done.metrics["loss"])
        state = method.after(state, [Update("a", number, 0, done.arrays, 8)])
    assert losses[-1] < losses[0]


def test_nothing_is_added_at_first() -> None:
    module = network()
    x = next(batches())[0]
    with torch.no_grad():
        wanted = module(x)
    for name, make in METHODS.items():
        method = make()
        plan, sent = method.told(method.begin(model_of(module), CONFIG), "a")
        with torch.no_grad(), adapted(module, model_of(module), plan, sent):
            assert torch.equal(module(x), wanted), name


def test_what_is_trained_is_what_the_server_publishes() -> None:
    """The network with what was sent computes as with scaling B A in its weights."""
    module, draw = network(), np.random.default_rng(3)
    x = next(batches())[0]
    for name in ("fedit", "flexlora", "flora", "fedex", "ffa"):
        method = METHODS[name]()
        state = method.begin(model_of(module), replace(CONFIG, residual_rank=64))
        for number in range(2):
            updates = []
            for client in ("a", "b"):
                plan, sent = method.told(state, client)
                arrays = {
                    n: (a + draw.standard_normal(a.shape) / 3).astype(np.float32)
                    for n, a in sent.items()
                    if not n.endswith((".FA", ".FB"))
                }
                updates.append(Update(client, number, 0, arrays, 5))
            state = method.after(state, updates)
        plan, sent = method.told(state, "a")
        with torch.no_grad(), adapted(module, model_of(module), plan, sent):
            found = module(x)
        merged = network()
        with torch.no_grad():
            for layer, factors in method.adapter(state).items():
                weight = merged.get_submodule(layer).weight
                assert isinstance(weight, Tensor)
                weight += torch.from_numpy(factors.delta)
            for array, value in state.of_head().items():
                merged.get_parameter(array.removeprefix("head.")).copy_(torch.from_numpy(value))
            assert torch.allclose(merged(x), found, atol=1e-5), name


def test_sparse_training_moves_what_is_on_the_mask_alone() -> None:
    module, method = network(), METHODS["sparse"]()
    plan, sent = method.told(method.begin(model_of(module), CONFIG), "a")
    done = trained(module, plan, sent)
    state = method.after(
        method.begin(model_of(module), CONFIG), [Update("a", 0, 0, done.arrays, 8)]
    )
    for arrays in ({**sent, **done.arrays}, state.arrays):
        with torch.no_grad(), adapted(module, model_of(module), plan, arrays):
            found = {layer: module.get_submodule(layer.name).weight for layer in LAYERS}
        for layer, weight in found.items():
            own = module.get_submodule(layer.name).weight
            assert isinstance(own, Tensor)
            assert isinstance(weight, Tensor)
            positions = mask(layer, plan.density, plan.seed)
            off = np.setdiff1d(np.arange(layer.rows * layer.columns), positions)
            now, then = (each.detach().numpy().reshape(-1) for each in (weight, own))
            assert now[off].tobytes() == then[off].tobytes()
            assert (now[positions] != then[positions]).mean() > 0.9


@pytest.mark.parametrize("name", ["full", "sparse", "fedit", "flora", "keep-sparse"])
def test_a_base_of_half_precision_learns_and_stays(name: str) -> None:
    module, method = network().bfloat16(), METHODS[name]()
    before = {n: value.clone() for n, value in module.state_dict().items()}
    model = Model(LAYERS)
    state, losses = method.begin(model, CONFIG), []

    def loss_of(batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(module(batch[0].bfloat16()).float(), batch[1])

    for number in range(4):
        plan, sent = method.told(state, "a")
        done = train(module, model, plan, sent, batches(), loss_of=loss_of)
        assert all(array.dtype == np.float32 for array in done.arrays.values())
        losses.append(done.metrics["loss"])
        state = method.after(state, [Update("a", number, 0, done.arrays, 8)])
    learnt = [torch.from_numpy(array) for array in done.arrays.values()]
    assert all((each != each.bfloat16()).any() for each in learnt)  # as fine as float32 is
    assert all(torch.equal(value, before[n]) for n, value in module.state_dict().items())
    assert losses[-1] < losses[0]


def test_fedsa_gives_each_client_an_adapter_of_its_own() -> None:
    method = FedSa()
    state = method.begin(model_of(network()), CONFIG)
    kept = {}
    for client, rate in (("a", 0.05), ("b", 0.01)):
        module = network()
        plan, sent = method.told(state, client)
        kept[client] = trained(module, replace(plan, learning_rate=rate), sent).kept
    for client, own in kept.items():
        for layer in LAYERS:
            wanted = 2.0 * (own[f"{layer.name}.B"] @ state.arrays[f"{layer.name}.A"])
            found = method.adapter_of(state, own)[layer.name].delta
            assert np.abs(found - wanted).max() <= 1e-6, client
    assert not np.array_equal(kept["a"]["0.B"], kept["b"]["0.B"])


def test_a_stays_in_ffa_and_b_with_its_client() -> None:
    module = network()
    for name, travels in (("ffa", ".B"), ("fedsa", ".A")):
        method = METHODS[name]()
        plan, sent = method.told(method.begin(model_of(module), CONFIG), "a")
        done = trained(module, plan, sent)
        layers = {n for n in done.arrays if not n.startswith("head.")}
        assert layers == {f"{layer.name}{travels}" for layer in LAYERS}
        if name == "fedsa":
            assert {f"{layer.name}.B" for layer in LAYERS} < set(done.kept)
            assert not any(n.startswith("head.") for n in done.arrays)
    assert first_a(LAYERS[0], 3, 0).tobytes() == first_a(LAYERS[0], 3, 0).tobytes()


def test_a_proximal_term_keeps_clients_near() -> None:
    module, method = network(), METHODS["fedit"]()
    far = {}
    for mu in (0.0, 100.0):
        plan, sent = method.told(
            method.begin(model_of(module), replace(CONFIG, proximal_mu=mu)), "a"
        )
        done = trained(module, replace(plan, steps=20), sent)
        far[mu] = sum(float(np.abs(done.arrays[n] - sent[n]).sum()) for n in done.arrays)
    assert far[100.0] < 0.5 * far[0.0]


def test_bad_data_is_said_and_leaves_the_base() -> None:
    module, method = network(), METHODS["fedit"]()
    before = bytes_of(module)
    plan, sent = method.told(method.begin(model_of(module), CONFIG), "a")
    whole = model_of(module)
    with pytest.raises(InvalidRequest, match="nothing to train on"):
        train(module, whole, plan, sent, [], loss_of=lambda batch: torch.zeros(()))
    with pytest.raises(InvalidRequest, match="the loss is nan in step 1"):
        train(module, whole, plan, sent, [0.0], loss_of=lambda b: torch.tensor(float("nan")))
    with pytest.raises(KeyError, match=r"0\.A"):
        trained(module, plan, {n: a for n, a in sent.items() if n != "0.A"})
    with pytest.raises(InvalidRequest, match="is a Tanh, not linear"):
        train(module, Model((Layer("1", 12, 12),)), plan, sent, [], loss_of=torch.zeros)
    assert bytes_of(module) == before
