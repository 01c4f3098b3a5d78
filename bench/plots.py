"""Draws the results of bench.fairness: python -m bench.plots

As the figures of VTC (OSDI'24, section 5): the service that tenants get over time, how long first
tokens take over time, and how far apart the service of two comes, against what policies promise.
The same results give the same files, byte for byte.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.results import FOLDER, PLOTS

SMOOTH = 5  # seconds that a point is the mean of
WIDTH, HEIGHT = 3.2, 2.4  # inches, of a panel
COLUMNS = 3
STYLE: Any = {  # of matplotlib
    "svg.hashsalt": "lorikeet",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
# Colours of Okabe and Ito, which the colour-blind can tell apart; lines differ too.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, RED, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
OF_TENANTS: Sequence[tuple[str, Any]] = (
    (BLUE, "-"), (RED, "--"), (GREEN, "-."), (PURPLE, ":")
)  # fmt: skip
OF_POLICIES: Mapping[str, tuple[str, Any]] = {
    "fcfs": (BLACK, "-"),
    "rpm-reject": (ORANGE, "--"),
    "lcf": (SKY, "-."),
    "vtc": (BLUE, "-"),
    "vtc-predict": (GREEN, ":"),
    "vtc-adapter": (RED, (0, (6, 2))),
}


@dataclass(frozen=True, slots=True)
class Course:
    """What a tenant got under a policy, second by second; first tokens in seconds, None where none
    came."""

    policy: str
    tenant: str
    service: Sequence[int]
    first_token: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    courses: Sequence[Course]
    bounds: Mapping[str, float]
    window: tuple[float, float]

    @property
    def policies(self) -> list[str]:
        return list(dict.fromkeys(course.policy for course in self.courses))

    def of(self, policy: str) -> list[Course]:
        return [course for course in self.courses if course.policy == policy]


def read(path: Path) -> Case:
    found = json.loads(path.read_text())
    courses = [
        Course(
            row["policy"],
            row["tenant"],
            [int(amount) for amount in row["service"].split()],
            [None if ms == "-" else int(ms) / 1000 for ms in row["first_token"].split()],
        )
        for row in found["series"]
    ]
    bounds = {row["policy"]: row["bound"] for row in found["outcomes"] if row["bound"] is not None}
    start, end = found["window"]
    return Case(path.stem, courses, bounds, (start, end))


def service(case: Case) -> Figure:
    def draw(axes: Axes, course: Course, style: Mapping[str, Any]) -> None:
        axes.plot(_middles(course.service), _smoothed(course.service), **style)

    return _panels(case, "service a second\n(input + 2 x output tokens)", draw)


def response(case: Case) -> Figure:
    def draw(axes: Axes, course: Course, style: Mapping[str, Any]) -> None:
        points = [(at + 0.5, s) for at, s in enumerate(course.first_token) if s is not None]
        axes.plot(
            [at for at, _ in points], [s for _, s in points], marker=".", markersize=3, **style
        )

    return _panels(case, "time to first token [s]", draw)


def gap(case: Case) -> Figure:
    """Of two tenants, since the beginning of what counts."""
    figure = Figure(figsize=(2 * WIDTH, 1.5 * HEIGHT), layout="constrained")
    axes = figure.subplots()
    start, end = int(case.window[0]), int(case.window[1])
    for policy in case.policies:
        one, other = (course.service[start:end] for course in case.of(policy))
        apart = accumulate(a - b for a, b in zip(one, other, strict=True))
        heights = [0, *map(abs, apart)]
        color, line = OF_POLICIES[policy]
        seconds = range(start, start + len(heights))
        axes.plot(seconds, heights, color=color, linestyle=line, label=policy)
    for bound in sorted(set(case.bounds.values())):
        whose = ", ".join(policy for policy, its in case.bounds.items() if its == bound)
        axes.axhline(bound, color="#777777", linewidth=0.8)
        axes.annotate(f"bound 2 (U + Q) of {whose}", (start, bound), va="bottom", fontsize=8)
    axes.set_xlabel("time [s]")
    axes.set_ylabel("accumulated gap\n(input + 2 x output tokens)")
    axes.set_yscale("symlog", linthresh=100)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


PLOTTED: Mapping[str, Sequence[Callable[[Case], Figure]]] = {
    "fairness_two": (service, response, gap),
    "fairness_flood": (response,),
    "fairness_weights": (service,),
    "fairness_late": (service,),
    "fairness_adapters": (service, response, gap),
    "fairness_tiers": (service,),
}


def _panels(
    case: Case, label: str, draw: Callable[[Axes, Course, Mapping[str, Any]], None]
) -> Figure:
    """One for each policy, on the same scales; what does not count is grey."""
    columns = min(COLUMNS, len(case.policies))
    rows = -(-len(case.policies) // columns)
    figure = Figure(figsize=(WIDTH * max(columns, 2), HEIGHT * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, policy in zip(grid.flat, case.policies, strict=False):
        courses = case.of(policy)
        for course, (color, line) in zip(courses, OF_TENANTS, strict=False):
            style = {"color": color, "linestyle": line, "label": course.tenant}
            draw(axes, course, style)
        _grey(axes, case, len(courses[0].service))
        axes.set_title(policy)
        axes.set_ylim(bottom=0)
    for axes in grid[-1]:
        axes.set_xlabel("time [s]")
    figure.supylabel(label, fontsize=9)
    handles, names = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    return figure


def _grey(axes: Axes, case: Case, seconds: int) -> None:
    axes.set_xlim(0, seconds)
    for start, end in ((0.0, case.window[0]), (case.window[1], float(seconds))):
        if start < end:
            axes.axvspan(start, end, color="#000000", alpha=0.06, linewidth=0)


def _smoothed(values: Sequence[int]) -> list[float]:
    """Means of so many neighbours; none are made up at the ends."""
    return [
        sum(values[at : at + SMOOTH]) / SMOOTH for at in range(max(0, len(values) - SMOOTH + 1))
    ]


def _middles(values: Sequence[int]) -> list[float]:
    return [at + SMOOTH / 2 for at in range(max(0, len(values) - SMOOTH + 1))]


def drawn(folder: Path) -> Iterator[tuple[str, Figure]]:
    for path in sorted(folder.glob("fairness_*.json")):
        case = read(path)
        for plot in PLOTTED[case.name]:
            yield f"{case.name}_{plot.__name__}.svg", plot(case)


def main() -> None:
    PLOTS.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, figure in drawn(FOLDER):
            figure.savefig(PLOTS / name, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
