"""What each family of networks is and costs, known beforehand, so that ``scisr models`` need not build any.

The tests build every one and compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["FIGURES", "PAPERS", "NetworkSummary", "family_figures"]

PAPERS: Mapping[str, str] = {
    "carn": "Ahn 2018, arXiv:1803.08664",
    "drrn": "Tai 2017, doi:10.1109/CVPR.2017.298",
    "edsr": "Lim 2017, arXiv:1707.02921",
    "encoder_decoder": "after Mao 2016, arXiv:1603.09056",
    "espcn": "Shi 2016, arXiv:1609.05158",
    "fsrcnn": "Dong 2016, arXiv:1608.00367",
    "imdn": "Hui 2019, arXiv:1909.11856",
    "mdcsrn": "Chen 2018, arXiv:1803.01417",
    "mobile": "after Sandler 2018, arXiv:1801.04381",
    "msrresnet": "after Ledig 2017, arXiv:1609.04802 (BasicSR)",
    "rcan": "Zhang 2018, arXiv:1807.02758",
    "rdn": "Zhang 2018, arXiv:1802.08797",
    "rrdbnet": "Wang 2018, arXiv:1809.00219 (ESRGAN)",
    "srcnn": "Dong 2014, arXiv:1501.00092",
    "srresnet": "Ledig 2017, arXiv:1609.04802 (SRGAN)",
    "srvgg": "Wang 2021, arXiv:2107.10833 (Real-ESRGAN)",
    "swinir": "Liang 2021, arXiv:2108.10257",
    "unet": "Ronneberger 2015, arXiv:1505.04597",
    "vdsr": "Kim 2016, arXiv:1511.04587",
}
"""Where each family comes from."""


@dataclass(frozen=True)
class NetworkSummary:
    """One row of the table.

    Attributes:
        name: of the family or the weights.
        family: of the network.
        paper: where it comes from.
        ndim: spatial axes.
        scale: whole factor per axis.
        in_channels: channels it takes.
        parameters: numbers that are learned.
        receptive_radius: input pixels on each side per axis, or None where nothing bounds them.
        exact_tiling: whether tiles give the whole image's values.
        gflop: 10^9 multiplications and additions per million output pixels.
    """

    name: str
    family: str
    paper: str
    ndim: int
    scale: tuple[int, ...]
    in_channels: int
    parameters: int
    receptive_radius: tuple[int, ...] | None
    exact_tiling: bool
    gflop: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


FIGURES: Mapping[str, tuple[tuple[int, int | None, float], tuple[int, int | None, float]]] = {
    "carn": ((254_721, 21, 194.98), (552_193, 21, 229.68)),
    "drrn": ((297_216, 28, 14750.21), (891_648, 28, 44250.62)),
    "edsr": ((1_367_553, 36, 683.42), (4_540_417, 36, 1137.46)),
    "encoder_decoder": ((457_825, 17, 30.93), (1_552_609, 17, 32.25)),
    "espcn": ((21_284, 4, 10.59), (70_312, 4, 17.55)),
    "fsrcnn": ((12_809, 8, 6.23), (65_065, 8, 16.18)),
    "imdn": ((688_636, None, 341.66), (1_963_904, None, 489.65)),
    "mdcsrn": ((151_617, 10, 302.46), (410_241, 10, 819.71)),
    "mobile": ((39_428, 10, 19.04), (49_928, 10, 12.14)),
    "msrresnet": ((1_367_553, 35, 738.72), (4_540_417, 35, 1330.99)),
    "rcan": ((4_092_297, None, 2028.96), (12_647_305, None, 3155.76)),
    "rdn": ((22_121_089, 133, 11056.54), (65_475_713, 133, 16369.46)),
    "rrdbnet": ((16_658_753, 349, 8434.08), (49_949_249, 349, 12874.03)),
    "srcnn": ((8_129, 5, 16.06), (52_801, 5, 105.41)),
    "srresnet": ((1_376_787, 40, 694.94), (4_630_291, 40, 1238.54)),
    "srvgg": ((594_884, 18, 296.35), (1_787_208, 18, 446.26)),
    "swinir": ((904_744, 103, 520.11), (1_257_620, 53, 344.02)),
    "unet": ((3_252_961, 67, 112.08), (10_553_313, 67, 122.73)),
    "vdsr": ((665_921, 12, 1329.41), (1_995_329, 12, 3988.22)),
}
"""Of each family with its default sizes, one channel and factor 2, in two and in three dimensions: parameters,
receptive radius (None: whole image), and 10^9 operations per million output pixels, to two digits after the point."""


def family_figures(ndim: int) -> list[NetworkSummary]:
    """Every family with its default sizes, one channel and factor 2; builds nothing.

    Example:
        >>> family_figures(3)[0].scale
        (2, 2, 2)
    """
    rows = []
    for name, both in FIGURES.items():
        parameters, radius, gflop = both[ndim - 2]
        rows.append(
            NetworkSummary(
                name=name,
                family=name,
                paper=PAPERS[name],
                ndim=ndim,
                scale=(2,) * ndim,
                in_channels=1,
                parameters=parameters,
                receptive_radius=None if radius is None else (radius,) * ndim,
                exact_tiling=radius is not None,
                gflop=gflop,
            )
        )
    return rows
