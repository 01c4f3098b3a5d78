"""Draws bench.gpu's kernels under their roofs: python -m bench.gpu_plot"""

import argparse
import json
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.gpu_roofline import Point, Roof
from bench.plots import BLACK, BLUE, GREEN, ORANGE, RED, STYLE
from bench.results import FOLDER, PLOTS

KINDS = {
    "base product": (BLACK, "o"),
    "adapters": (BLUE, "s"),
    "decode attention": (GREEN, "^"),
    "prefill attention": (ORANGE, "D"),
}


def figure(points: Sequence[Point], roof: Roof) -> Figure:
    with mpl.rc_context(STYLE):
        made = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = made.subplots()
        all_ = [point.intensity for point in points]
        ridge = roof.flops_a_second / roof.bytes_a_second
        corners = sorted((min(all_) / 2, ridge, max(all_) * 2))
        axes.plot(corners, [roof.over(at) for at in corners], color=RED, label="roof")
        for kind, (color, marker) in KINDS.items():
            ours = [point for point in points if point.kind == kind]
            reached = [point.flops / point.seconds for point in ours]
            axes.scatter(
                [point.intensity for point in ours], reached,
                color=color, marker=marker, s=18, label=kind, zorder=3,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("operations for each byte that has to be moved")
        axes.set_ylabel("operations a second")
        axes.legend(frameon=False)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.gpu_plot")
    path = FOLDER / "gpu.json"
    parser.parse_args()
    if not path.exists():
        parser.error("nothing was measured yet: python -m bench.gpu, on a machine with a GPU")
    found = json.loads(path.read_text())
    points = [Point(**row) for row in found["points"]]
    drawn = figure(points, Roof(**found["roof"][0]))
    drawn.savefig(PLOTS / "gpu_roofline.svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
