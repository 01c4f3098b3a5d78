import pytest

from services.policies.autoscaling import Need, Rules, workers_wanted

CALM = {"workers": 4, "sequences": 20, "room": 40}


@pytest.mark.parametrize(
    ("need", "wanted"),
    [
        (CALM, 3),  # 20 of 10 each, of which seven are to be in use
        (CALM | {"sequences": 0}, 1),
        (CALM | {"sequences": 35}, 5),
        (CALM | {"pages_used": 0.9}, 5),
        (CALM | {"pages_used": 0.5}, 3),
        (CALM | {"in_time": 0.9}, 5),
        (CALM | {"longest_wait_seconds": 6.0}, 5),
        (CALM | {"sequences": 1000}, 8),  # no more than twice as many at once
        ({"workers": 0, "sequences": 9, "room": 0}, 1),
        ({"workers": 0, "sequences": 0, "room": 0}, 1),
        ({"workers": 2, "sequences": 0, "room": 0}, 1),  # they have not said what they can run
    ],
)
def test_as_many_as_the_signal_that_asks_for_most(need: dict[str, float], wanted: int) -> None:
    assert workers_wanted(Need(**need), Rules()) == wanted  # type: ignore[arg-type]


def test_a_model_that_nobody_asks_for_may_have_no_worker() -> None:
    rules = Rules(least=0)
    assert workers_wanted(Need(workers=0, sequences=0, room=0), rules) == 0
    assert workers_wanted(Need(workers=2, sequences=0, room=20), rules) == 0
    assert workers_wanted(Need(workers=0, sequences=1, room=0), rules) == 1


def test_there_are_never_more_than_there_may_be() -> None:
    assert workers_wanted(Need(workers=4, sequences=400, room=40), Rules(most=6)) == 6
