"""LPIPS: distance in the features of a network (Zhang et al. 2018, doi:10.1109/CVPR.2018.00068)."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from sciSR.errors import CheckpointError, InputError
from sciSR.metrics.arrays import Image, as_pair, check_range
from sciSR.metrics.features import build_backbone, read_weights

__all__ = ["LPIPS"]

_NETWORKS = ("alexnet", "vgg16")


class LPIPS(nn.Module):
    """Learned perceptual distance, 0 where the images are equal; for volumes the mean over the slices along z.

    At each layer the features are scaled to length 1 across channels; their squared differences are weighted per
    channel, averaged over the pixels, and summed over the layers. Version 0.1 of the authors' weights fits: the
    backbone is torchvision's ``alexnet`` or ``vgg16``, the linear layers are the package's ``weights/v0.1/alex.pth``
    or ``vgg.pth``. Images with other than three channels are judged channel by channel, as grey ones.

    Args:
        backbone: ``"alexnet"`` or ``"vgg16"``.
        weights: file of the backbone's weights; nothing is ever downloaded.
        linear: file of the linear layers; None: every channel counts 1 (the authors' uncalibrated baseline).
        seed: of random features, where there is no file.

    Raises:
        InputError: another backbone, or neither file nor seed.
        CheckpointError: a file that does not fit.

    Example:
        >>> distance = LPIPS("alexnet", seed=0)
        >>> distance(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64), data_range=1.0)
        0.0
    """

    def __init__(
        self,
        backbone: str = "alexnet",
        *,
        weights: str | os.PathLike[str] | None = None,
        linear: str | os.PathLike[str] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if backbone not in _NETWORKS:
            raise InputError(f"LPIPS: backbone {backbone!r} is not one of {', '.join(_NETWORKS)}")
        self.features = build_backbone(backbone, weights=weights, seed=seed)
        self.linear = None if linear is None else _linear(linear)

    @torch.no_grad()
    def forward(self, prediction: Image, target: Image, *, data_range: float, lowest: float = 0.0) -> float:
        """The mean distance of the items.

        Args:
            prediction: ``(b, c, [z,] y, x)`` or one image or volume.
            target: the same shape.
            data_range: length of the value range; the backbone sees 0 to 1.
            lowest: value that the backbone sees as 0.
        """
        length = check_range(data_range)
        device = self.features.mean.device
        pair = [((x - lowest) / length).float().to(device) for x in as_pair(prediction, target)]
        features = [self.features(x) for x in pair]
        total = torch.zeros((), device=device)
        for layer, (a, b) in enumerate(zip(*features, strict=True)):
            square = (_unit(a) - _unit(b)).square()
            if self.linear is not None:
                weight = self.linear[layer].to(device)
                if weight.shape[1] != square.shape[1]:
                    raise CheckpointError(
                        f"LPIPS: the linear layer {layer} has {weight.shape[1]} channels, the backbone "
                        f"{square.shape[1]}; the two files are of different networks"
                    )
                square = square * weight
            total = total + square.sum(dim=1).mean()
        return float(total)


def _linear(path: str | os.PathLike[str]) -> list[Tensor]:
    """One weight ``(1, c, 1, 1)`` per layer from ``lin0.model.1.weight`` and so on."""
    tensors = read_weights(path)
    found = sorted((key, value) for key, value in tensors.items() if key.startswith("lin") and key.endswith("weight"))
    if len(found) != 5 or any(value.dim() != 4 for _, value in found):
        raise CheckpointError(f"{os.fspath(path)}: not LPIPS's linear layers; expected lin0.model.1.weight to lin4.…")
    return [value.float() for _, value in found]


def _unit(features: Tensor) -> Tensor:
    length: Tensor = features.norm(dim=1, keepdim=True)
    return features / (length + 1e-10)
