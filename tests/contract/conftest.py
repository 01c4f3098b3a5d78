"""What several contracts need."""

from collections.abc import Iterator

import pytest

from tests.databases import KINDS, migrated


@pytest.fixture(scope="module", params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A migrated database of each kind, one a module."""
    with migrated(request.param, tmp_path_factory.mktemp("db")) as url:
        yield url
