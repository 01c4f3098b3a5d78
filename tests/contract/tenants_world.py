"""What tests of tenants share."""

from datetime import UTC, datetime

OPERATOR = "operator-token"


class Calendar:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now
