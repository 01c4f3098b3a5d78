"""Which client has how much of what, in characters."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

COLOURS = (
    "blue", "red", "green", "yellow", "magenta", "cyan", "bright_blue", "bright_red",
    "bright_green", "bright_yellow", "bright_magenta", "bright_cyan",
)  # fmt: skip
BLOCKS = "█▓▒"  # labels that share a colour differ in their block
NAMED = 2


def split_plot(split: Mapping[str, Mapping[str, int]], *, width: int = 20) -> RenderableType:
    """`split`: rows by client and label. A bar of `width` is the largest client's, and its labels
    come in one order; beside it are the labels that the client has most of."""
    labels = sorted({label for has in split.values() for label in has})
    styles = {label: _style(index) for index, label in enumerate(labels)}
    longest = max((sum(has.values()) for has in split.values()), default=0)
    table = Table(box=None, header_style="bold")
    table.add_column("client", no_wrap=True)
    table.add_column("rows", justify="right")
    table.add_column("", min_width=width)
    table.add_column("mostly", no_wrap=True)
    for client, has in split.items():
        rows = sum(has.values())
        bar = Text(no_wrap=True)
        for label, length in zip(labels, _lengths(has, labels, longest, width), strict=True):
            block, colour = styles[label]
            bar.append(block * length, style=colour)
        table.add_row(client, f"{rows:,}", bar, _mostly(has, rows))
    legend = Text()
    for label in labels:
        block, colour = styles[label]
        legend.append(block, style=colour)
        legend.append(f"{label} ")
    return Group(table, legend)


def _style(index: int) -> tuple[str, str]:
    return BLOCKS[index // len(COLOURS) % len(BLOCKS)], COLOURS[index % len(COLOURS)]


def _lengths(has: Mapping[str, int], labels: Sequence[str], longest: int, width: int) -> list[int]:
    """In characters, whose sum is right although each is rounded."""
    ends, done = [0], 0
    for label in labels:
        done += has.get(label, 0)
        ends.append(round(done * width / longest) if longest else 0)
    return [end - start for start, end in pairwise(ends)]


def _mostly(has: Mapping[str, int], rows: int) -> str:
    first = sorted(has, key=lambda label: (-has[label], label))[:NAMED]
    return ", ".join(f"{label} {has[label] / rows:.0%}" for label in first if has[label])
