"""When a gateway counts as dead."""

from services.policies.beats import Silence


def test_a_beat_that_stands_still_for_a_lease_is_silence() -> None:
    silence = Silence(10.0)
    for now in (100.0, 104.0, 108.0):
        assert silence.look({"a": 1}, now) == {}
    assert silence.look({"a": 1}, 112.0) == {"a": 1}


def test_a_beat_that_changes_is_none() -> None:
    silence = Silence(10.0)
    for beat in range(20):
        assert silence.look({"a": beat}, 100.0 + 4 * beat) == {}


def test_who_could_not_look_begins_anew() -> None:
    """The database was away: from the others too, who could not beat."""
    silence = Silence(10.0)
    assert silence.look({"a": 1}, 100.0) == {}
    assert silence.look({"a": 1}, 120.0) == {}
    assert silence.look({"a": 1}, 125.0) == {}
    assert silence.look({"a": 1}, 130.0) == {"a": 1}


def test_a_newcomer_has_its_own_lease() -> None:
    silence = Silence(10.0)
    silence.look({"a": 1}, 100.0)
    silence.look({"a": 1, "b": 0}, 105.0)
    assert silence.look({"a": 1, "b": 0}, 110.0) == {"a": 1}
    assert silence.look({"b": 0}, 115.0) == {"b": 0}
