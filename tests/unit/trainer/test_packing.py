"""Which examples run together, in which order."""

from itertools import chain, islice

from hypothesis import given
from hypothesis import strategies as st

from services.trainer.config import TrainingConfig
from services.trainer.training.packing import held_out, pack, steps, total_steps

LENGTHS = st.lists(st.integers(2, 20), min_size=1, max_size=40)


@given(LENGTHS)
def test_each_is_in_one_pack_and_none_is_too_long(lengths: list[int]) -> None:
    packs = pack(lengths, range(len(lengths)), 20)
    assert list(chain.from_iterable(packs)) == list(range(len(lengths)))
    sums = [sum(lengths[index] for index in each) for each in packs]
    assert all(total <= 20 for total in sums)
    for total, following in zip(sums, packs[1:], strict=False):
        assert total + lengths[following[0]] > 20  # no room was left for it


@given(LENGTHS, st.integers(1, 4), st.integers(0, 3))
def test_an_epoch_sees_every_example_once(lengths: list[int], a_step: int, seed: int) -> None:
    config = TrainingConfig.asked(epochs=2, pack_tokens=20, packs_a_step=a_step, seed=seed)
    total = total_steps(lengths, config)
    seen = [index for step in islice(steps(lengths, config), total) for p in step for index in p]
    assert sorted(seen[: len(lengths)]) == list(range(len(lengths)))
    assert sorted(seen) == sorted([*range(len(lengths))] * 2)


def test_the_order_is_the_seeds() -> None:
    lengths = [5] * 50

    def order(seed: int, start: int = 0) -> list[list[tuple[int, ...]]]:
        config = TrainingConfig.asked(steps=9, pack_tokens=20, seed=seed)
        return list(islice(steps(lengths, config), start, 30))

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1, start=20) == order(1)[20:]
    assert order(1)[:13] != order(1)[13:26]  # the next epoch has another


def test_parts_of_epochs_are_steps() -> None:
    lengths = [10] * 8
    for epochs, expected in ((0.1, 1), (0.5, 4), (1, 8), (2.5, 20)):
        config = TrainingConfig.asked(epochs=epochs, pack_tokens=10)
        assert total_steps(lengths, config) == expected


def test_lines_are_held_out_whole_and_never_all() -> None:
    lines = [1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    config = TrainingConfig.asked(validation_share=0.3, seed=3)
    apart = held_out(lines, config)
    assert len(apart) == 3
    assert apart == held_out(lines[::-1], config)
    assert held_out([1, 1], config) == set()
    assert held_out(lines, TrainingConfig.asked()) == set()
