"""Tables for people: what a column is called and what stands in it."""

import pytest

from lorikeet.adapter_store.v1.adapter_lifecycle_service_pb2 import Alias, Canary
from lorikeet.adapter_store.v1.adapter_lifecycle_service_pb2 import AliasMoveKind as Kind
from services.cli import show
from services.cli.show import Output


def test_a_table_says_which_number_it_is_and_what_was_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    moves = [
        Alias(number=1, canary=Canary(number=2, percent=10), kind=Kind.ALIAS_MOVE_KIND_CANARY),
        Alias(number=3, kind=Kind.ALIAS_MOVE_KIND_ROLLBACK),
    ]
    show.show(moves, Output.TABLE, "number", "canary.number", "canary.percent", "kind")
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["number", "canary", "number", "percent", "kind"]
    assert [row.split() for row in rows] == [
        ["1", "2", "10", "canary"],
        ["3", "-", "-", "rollback"],
    ]
