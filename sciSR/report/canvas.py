"""A page to draw on, in inches from its upper left corner, on matplotlib."""

from __future__ import annotations

import math
from typing import IO, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

__all__ = ["Box", "Canvas", "Panel"]

_NO_VALUE = "#b9c4d6"
_ERROR_COLOURS = "inferno"
_OVERSAMPLE = 3


class Box(NamedTuple):
    """A rectangle on the page, in inches from the upper left corner."""

    left: float
    top: float
    width: float
    height: float


Panel = Axes
"""An image that has its place."""


class Canvas:
    """One page.

    Args:
        width: inches.
        height: inches.
        dpi: pixels per inch.
    """

    def __init__(self, width: float, height: float, dpi: int) -> None:
        self._width, self._height, self._dpi = width, height, dpi
        self._figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
        FigureCanvasAgg(self._figure)

    def save(self, file: IO[bytes]) -> None:
        """Write the page as PNG; nothing in it tells when or with what."""
        self._figure.savefig(file, format="png", metadata={"Software": None})

    def text(
        self,
        left: float,
        top: float,
        words: str,
        *,
        size: float,
        bold: bool = False,
        centred: bool = False,
        colour: str = "#111111",
        rotation: float = 0,
    ) -> None:
        """Words whose base line (centre, if turned) lies at a point."""
        self._figure.text(
            left / self._width,
            1 - top / self._height,
            words,
            fontsize=size,
            fontweight="bold" if bold else "normal",
            color=colour,
            rotation=rotation,
            ha="center" if centred else "left",
            va="center" if rotation else "baseline",
        )

    def rule(self, left: float, top: float, bottom: float) -> None:
        """A thin line down the page."""
        x = left / self._width
        ends = [1 - top / self._height, 1 - bottom / self._height]
        line = Line2D([x, x], ends, color="#cccccc", linewidth=1, transform=self._figure.transFigure)
        self._figure.add_artist(line)

    def image(self, box: Box, image: NDArray[np.float64]) -> Panel:
        """An image of values from 0 (black) to 1; two axes grey, three colour; NaN is a flat grey-blue."""
        panel = self._panel(box)
        shown = np.clip(image, 0, 1)
        if shown.ndim == 3:
            shown = np.where(np.isnan(shown).any(axis=2, keepdims=True), _rgb(_NO_VALUE), shown)
        self._show(panel, box, shown, "gray", 1.0)
        return panel

    def error(self, box: Box, image: NDArray[np.float64], limit: float) -> Panel:
        """An image of errors from 0 (black) to ``limit`` (brightest)."""
        panel = self._panel(box)
        self._show(panel, box, image, _ERROR_COLOURS, limit)
        return panel

    def colour_bar(self, box: Box, limit: float, label: str) -> None:
        """The scale of the error images."""
        axes = self._figure.add_axes(self._place(box))
        bar = self._figure.colorbar(ScalarMappable(Normalize(0, limit), _ERROR_COLOURS), cax=axes, extend="max")
        bar.set_label(label, fontsize=9)
        bar.ax.tick_params(labelsize=8)

    def letters(self, panel: Panel, letters: tuple[str, str, str, str]) -> None:
        """What lies left, right, top and bottom, at the edges of an image."""
        places = ((0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center"), (0.5, 0.98, "center", "top"),
                  (0.5, 0.02, "center", "bottom"))  # fmt: skip
        for letter, (x, y, across, along) in zip(letters, places, strict=True):
            self._on(panel, x, y, letter, 10, across, along)

    def caption(self, panel: Panel, words: str) -> None:
        """Words in the upper left corner of an image."""
        self._on(panel, 0.03, 0.97, words, 9, "left", "top")

    def scale_bar(self, panel: Panel, words: str, *, share: float) -> None:
        """A bar over ``share`` of the image's width, with its length in words."""
        bar = Line2D([0.05, 0.05 + share], [0.05, 0.05], color="white", linewidth=2.5, transform=panel.transAxes)
        bar.set_path_effects([withStroke(linewidth=4.5, foreground="black")])
        bar.set_solid_capstyle("butt")
        panel.add_artist(bar)
        self._on(panel, 0.05, 0.075, words, 8.5, "left", "bottom")

    def _on(self, panel: Panel, x: float, y: float, words: str, size: float, across: str, along: str) -> None:
        text = panel.text(x, y, words, transform=panel.transAxes, fontsize=size, color="white", ha=across, va=along)
        text.set_path_effects([withStroke(linewidth=2.2, foreground="black")])

    def _panel(self, box: Box) -> Panel:
        axes = self._figure.add_axes(self._place(box))
        axes.set_axis_off()
        return axes

    def _show(self, panel: Panel, box: Box, image: NDArray[np.float64], colours: str, limit: float) -> None:
        """Square pixels with sharp edges where they are larger than the page's, smoothed where they are smaller."""
        times = [
            math.ceil(_OVERSAMPLE * inches * self._dpi / n) if inches * self._dpi > n else 1
            for inches, n in zip((box.height, box.width), image.shape, strict=False)
        ]
        drawn = image.repeat(times[0], axis=0).repeat(times[1], axis=1)
        palette = colormaps[colours].with_extremes(bad=_NO_VALUE)
        panel.imshow(drawn, cmap=palette, vmin=0, vmax=limit, aspect="auto", interpolation="antialiased")

    def _place(self, box: Box) -> tuple[float, float, float, float]:
        bottom = self._height - box.top - box.height
        return (box.left / self._width, bottom / self._height, box.width / self._width, box.height / self._height)


def _rgb(colour: str) -> NDArray[np.float64]:
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
