"""E0: simulator, metrics and policies come to what was published of VTC (OSDI'24), as nearly as
bench/published_vtc.py states; python -m bench.published_vtc compares all of it."""

import pytest

from bench.published_vtc import COLD, PUBLISHED, Published, compared

SHORT = [one for one in PUBLISHED if one in COLD or one.workload in ("overload", "increase")]


@pytest.mark.parametrize(
    "one", SHORT, ids=lambda one: f"{one.workload} {one.policy} {one.what} {one.first_step_seconds}"
)
def test_ours_is_near_what_was_published(one: Published) -> None:
    [row] = compared([one])
    assert row.is_near, f"{row.ours:.4g} for {row.published:g}, which is not {row.allowed}"
