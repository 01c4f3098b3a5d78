"""Draws the federated experiments: python -m bench.experiments.plots

The split of labels, accuracy against alpha and against bytes as in the papers, accuracy by round,
and what the length of a first stage and the density of its mask do. The same cells give the same
files, byte for byte.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.experiments import grid
from bench.experiments.cells import FINISHED, Cells
from bench.experiments.corpus import read_corpus
from bench.experiments.splits import SHOWN, split
from bench.plots import BLACK, BLUE, GREEN, HEIGHT, ORANGE, PURPLE, RED, SKY, STYLE, WIDTH
from bench.results import PLOTS
from services.trainer.partition import counts

OF_METHODS: Mapping[str, tuple[str, str, Any, str]] = {  # name, colour, line, marker
    grid.FULL: ("full fine-tuning", BLACK, "-", "o"),
    grid.LORA: ("LoRA (FedIT)", BLUE, "--", "s"),
    grid.SLORA: ("SLoRA", RED, "-", "D"),
    grid.SPARSE: ("sparse only", ORANGE, ":", "^"),
    grid.FFA: ("FFA-LoRA", GREEN, "-.", "v"),
    grid.PRIMED: ("primed LoRA", PURPLE, "--", "P"),
    grid.KEPT: ("sparse kept, LoRA", SKY, "-.", "X"),
}
Draw = Callable[[Axes, str, Mapping[str, Any]], None]


def alphas(cells: Cells) -> Figure:
    found = grid.results(cells)

    def draw(axes: Axes, method: str, style: Mapping[str, Any]) -> None:
        tried = sorted(alpha for name, alpha in found if name == method)
        tests = [[each.test for each in found[method, alpha].values()] for alpha in tried]
        _ranges(axes, tried, tests, style)

    figure, axes = _one("Dirichlet alpha (less is more skewed)", draw)
    axes.set_xscale("log")
    axes.invert_xaxis()
    return figure


def traffic(cells: Cells) -> Figure:
    """Each point is a method on one split; all that was sent, both ways."""
    found = grid.results(cells)

    def draw(axes: Axes, method: str, style: Mapping[str, Any]) -> None:
        tried = [runs for (name, alpha), runs in found.items() if (name, alpha) == (method, 0.03)]
        sent = [next(iter(runs.values())).bytes / 1e6 for runs in tried]
        tests = [[each.test for each in runs.values()] for runs in tried]
        _ranges(axes, sent, tests, style)

    figure, axes = _one("bytes of all clients, both ways [MB], at alpha .03", draw)
    axes.set_xscale("log")
    return figure


def rounds(cells: Cells) -> Figure:
    """A panel for each split; lines are means of seeds."""
    found = grid.results(cells)
    splits = sorted({alpha for _, alpha in found}, reverse=True)
    figure = Figure(figsize=(WIDTH * max(2, len(splits)), 1.3 * HEIGHT), layout="constrained")
    grid_ = figure.subplots(1, max(1, len(splits)), sharey=True, squeeze=False)[0]
    for axes, alpha in zip(grid_, splits, strict=False):
        for method in (each for each in OF_METHODS if (each, alpha) in found):
            runs = list(found[method, alpha].values())
            points = zip(*(each.curve for each in runs), strict=True)
            curve = [(at[0].round, _mean([each.test for each in at])) for at in points]
            axes.plot(*zip(*curve, strict=True), **_style(method) | {"marker": ""})
        axes.set_title(f"alpha {alpha:g}")
        axes.set_xlabel("round")
    grid_[0].set_ylabel("test accuracy")
    _legend(figure, grid_)
    return figure


def stages(cells: Cells) -> Figure:
    label = "rounds of the first stage, of 24"
    return _ablation(cells, "first_rounds", label, grid.FIRST_ROUNDS)[0]


def densities(cells: Cells) -> Figure:
    figure, axes = _ablation(cells, "density", "density of the mask", grid.DENSITIES)
    axes.set_xscale("log")
    return figure


def splits() -> Figure:
    """The darker, the more rows of a label a client has; all of a label is about 180."""
    corpus = read_corpus()
    figure = Figure(figsize=(WIDTH * len(SHOWN), 2.2 * HEIGHT), layout="constrained")
    panels = figure.subplots(1, len(SHOWN), sharey=True)
    for axes, alpha in zip(panels, SHOWN, strict=True):
        found = split(corpus, alpha=alpha, clients=20, seed=0)
        table = counts(found, [row.label for row in corpus])
        labels = list(next(iter(table.values())))
        shades = [[math.sqrt(has[label]) for has in table.values()] for label in labels]
        axes.imshow(shades, cmap="Blues", aspect="auto", vmin=0, vmax=15, interpolation="nearest")
        axes.set_yticks(range(len(labels)), labels)
        axes.grid(visible=False)
        axes.set_title(f"alpha {alpha:g}" if alpha else "maintainer teams")
        axes.set_xticks([])
        axes.set_xlabel(f"{len(table)} clients")
    return figure


def _ablation(cells: Cells, name: str, label: str, values: Sequence[float]) -> tuple[Figure, Axes]:
    """Of cells that differ from a method's usual one in nothing else."""

    def draw(axes: Axes, method: str, style: Mapping[str, Any]) -> None:
        rates = grid.chosen(cells, method, grid.SKEWED)
        runs: dict[float, list[float]] = {}
        for cell, outcome in cells:
            value = getattr(cell, name)
            usual = grid.cell(method, grid.SKEWED, cell.seed, rates)
            if value in values and cell == replace(usual, **{name: value}):
                runs.setdefault(value, []).append(outcome.test)
        if len(runs) > 1:
            _ranges(axes, sorted(runs), [runs[value] for value in sorted(runs)], style)

    return _one(f"{label}, at alpha {grid.SKEWED:g}", draw)


def _one(label: str, draw: Draw) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(2 * WIDTH, 1.5 * HEIGHT), layout="constrained")
    axes = figure.subplots()
    for method in OF_METHODS:
        draw(axes, method, _style(method))
    axes.set_xlabel(label)
    axes.set_ylabel("test accuracy")
    _legend(figure, [axes])
    return figure, axes


def _ranges(
    axes: Axes, at: Sequence[float], tests: Sequence[Sequence[float]], style: Mapping[str, Any]
) -> None:
    """Means, and from the least to the most of all seeds."""
    if not at:
        return
    means = [_mean(each) for each in tests]
    below = [mean - min(each) for mean, each in zip(means, tests, strict=True)]
    above = [max(each) - mean for mean, each in zip(means, tests, strict=True)]
    axes.errorbar(at, means, yerr=(below, above), capsize=2, **style)


def _style(method: str) -> dict[str, Any]:
    name, colour, line, marker = OF_METHODS[method]
    return {"label": name, "color": colour, "linestyle": line, "marker": marker, "markersize": 4}


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    named: dict[str, Any] = {}
    for axes in panels:
        handles, names = axes.get_legend_handles_labels()
        named |= dict(zip(names, handles, strict=True))
    if named:
        figure.legend(named.values(), named, loc="outside right upper", frameon=False)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def drawn(cells: Cells) -> Iterator[tuple[str, Figure]]:
    yield "federated_split.svg", splits()
    for plot in (alphas, traffic, rounds, stages, densities):
        figure = plot(cells)
        if any(axes.has_data() for axes in figure.axes):
            yield f"federated_{plot.__name__}.svg", figure


def main(folder: Path = PLOTS) -> None:
    folder.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, figure in drawn(Cells(FINISHED)):
            figure.savefig(folder / name, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
