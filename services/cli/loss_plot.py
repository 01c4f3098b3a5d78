"""The curve of a loss, in characters; as SVG if it is to be kept."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lorikeet.trainer.v1.trainer_service_pb2 import TrainingPoint

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille character
BLANK = 0x2800
LABEL = 8


def plot(points: Sequence[TrainingPoint], *, width: int, height: int) -> Text:
    """Two columns and four rows of dots a character; "x" is what was held out."""
    columns = max(8, width - LABEL - 2)
    losses = [point.loss for point in points]
    held_out = [point.validation_loss for point in points if point.HasField("validation_loss")]
    low, high = min(losses + held_out), max(losses + held_out)
    span, last = (high - low) or 1.0, max(points[-1].step, 2)
    cells = [[BLANK] * columns for _ in range(height)]
    marks: dict[tuple[int, int], str] = {}
    for point in points:
        x = (point.step - 1) / (last - 1)
        column, row = _place(x, (high - point.loss) / span, 2 * columns, 4 * height)
        cells[row // 4][column // 2] |= DOTS[row % 4][column % 2]
        if point.HasField("validation_loss"):
            y = (high - point.validation_loss) / span
            column, row = _place(x, y, columns, height)
            marks[row, column] = "x"
    return _drawn(cells, marks, {0: high, height - 1: low}, last)


def save_plot(points: Sequence[TrainingPoint], to: Path, *, title: str) -> None:
    """Raises OSError."""
    page = Console(record=True, file=io.StringIO(), width=100)
    page.print(plot(points, width=96, height=20))
    page.save_svg(str(to), title=title)


def _place(x: float, y: float, columns: int, rows: int) -> tuple[int, int]:
    """Both from 0 to 1, as a column and a row."""
    return math.floor(x * (columns - 1) + 0.5), math.floor(y * (rows - 1) + 0.5)


def _drawn(
    cells: Sequence[Sequence[int]],
    marks: dict[tuple[int, int], str],
    labels: dict[int, float],
    last_step: int,
) -> Text:
    text = Text(no_wrap=True)
    for row, line in enumerate(cells):
        label = f"{labels[row]:.3f}" if row in labels else ""
        text.append(f"{label:>{LABEL}} ", style="dim")
        for column, cell in enumerate(line):
            mark = marks.get((row, column))
            text.append(mark or chr(cell), style="yellow" if mark else "cyan")
        text.append("\n")
    return text.append(f"{'':>{LABEL}} step 1 to {last_step}; x: held out\n", style="dim")
