"""Splits among clients, in characters."""

import io

from rich.console import Console

from services.cli.split_plot import split_plot


def shown(split: dict[str, dict[str, int]], width: int = 80) -> list[str]:
    page = io.StringIO()
    Console(file=page, width=width).print(split_plot(split, width=20))
    return page.getvalue().splitlines()


def test_the_largest_fills_the_bar() -> None:
    _, first, second, third, _ = shown(
        {"a": {"net": 30, "web": 10}, "b": {"net": 0, "web": 20}, "c": {"net": 1, "web": 0}}
    )
    assert first.split()[:2] == ["a", "40"]
    assert first.count("█") == 20
    assert "net 75%, web 25%" in first
    assert second.count("█") == 10
    assert "net" not in second
    assert third.count("█") in (0, 1)


def test_labels_of_one_colour_differ() -> None:
    split = {"a": {f"label-{n:02}": 10 for n in range(30)}}
    line = shown(split)[1]
    assert {"█", "▓", "▒"} <= set(line)


def test_clients_without_rows_can_be_shown() -> None:
    assert shown({"a": {"net": 0}})[1].split() == ["a", "0"]
