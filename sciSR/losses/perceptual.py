"""Losses on the features of a frozen network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sciSR.errors import InputError
from sciSR.losses.contract import Loss
from sciSR.metrics.features import build_backbone

__all__ = ["Content", "Perceptual"]


class Perceptual(Loss):
    """Weighted mean absolute errors of feature maps (Johnson et al. 2016, doi:10.1007/978-3-319-46475-6_43).

    Args:
        backbone: one of :data:`sciSR.metrics.features.BACKBONES`; ``medicalnet10`` or ``medicalnet18`` for volumes.
        weights: file of its weights; nothing is ever downloaded.
        seed: of random weights, where there is no file.
        layers: layers to compare with their weights; default all of the backbone's taps, weight 1 each.
        data_range: length of the value range of the tensors, so that the backbone sees 0 to 1.
        lowest: value that the backbone sees as 0.
    """

    needs = ("data_range",)

    def __init__(
        self,
        *,
        backbone: str = "vgg19",
        weights: str | os.PathLike[str] | None = None,
        seed: int | None = None,
        layers: Mapping[str, float] | Sequence[str] | None = None,
        data_range: float = 1.0,
        lowest: float = 0.0,
    ) -> None:
        super().__init__()
        shares = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers or (), 1.0)
        self.features = build_backbone(backbone, weights=weights, seed=seed, layers=tuple(shares) or None)
        self.shares = {name: float(shares.get(name, 1.0)) for name in self.features.names}
        self.data_range = data_range
        self.lowest = lowest

    def forward(self, prediction: Tensor, target: Tensor, low: Tensor | None = None) -> Tensor:
        """See :class:`~sciSR.losses.contract.Loss`."""
        made, wanted = self._features(prediction, target)
        parts = [share * self._distance(a, b) for share, a, b in zip(self.shares.values(), made, wanted, strict=True)]
        return torch.stack(parts).sum()

    def _distance(self, made: Tensor, wanted: Tensor) -> Tensor:
        return (made - wanted).abs().mean()

    def _features(self, prediction: Tensor, target: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        made = self.features((prediction.float() - self.lowest) / self.data_range)
        with torch.no_grad():
            wanted = self.features((target.float() - self.lowest) / self.data_range)
        return made, wanted


class Content(Perceptual):
    """Mean squared error of one feature map: SRGAN's content loss (Ledig et al. 2017, doi:10.1109/CVPR.2017.19).

    The paper's VGG54 is ``backbone="vgg19", layer="relu5_4"``; ESRGAN takes ``"conv5_4"``, before the activation
    (Wang et al. 2018, arXiv:1809.00219).

    Args:
        layer: the layer.
        options: as for :class:`Perceptual`, without ``layers``.
    """

    def __init__(self, *, layer: str = "relu5_4", **options: object) -> None:
        if "layers" in options:
            raise InputError("content loss: it compares one layer; give layer=, or take the perceptual loss")
        super().__init__(layers=(layer,), **options)  # type: ignore[arg-type]  # the options are Perceptual's own

    def _distance(self, made: Tensor, wanted: Tensor) -> Tensor:
        return (made - wanted).square().mean()
