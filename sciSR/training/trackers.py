"""Where a run is watched: TensorBoard by default where it is installed, Weights & Biases and MLflow on request."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sciSR.errors import InputError
from sciSR.resampling import resample

__all__ = ["TRACKERS", "Tracker", "open_trackers", "triptych"]


class Tracker(Protocol):
    """One place that is told how a run goes."""

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step."""
        ...

    def picture(self, step: int, image: NDArray[np.uint8]) -> None:
        """A grey picture ``(y, x)``."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


class _TensorBoard:
    def __init__(self, name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))
        self._writer.add_text("settings", "\n".join(f"- {key}: {value}" for key, value in settings.items()), 0)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def picture(self, step: int, image: NDArray[np.uint8]) -> None:
        self._writer.add_image("input, network, truth", image, step, dataformats="HW")

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        wandb: Any = importlib.import_module("wandb")
        folder.mkdir(parents=True, exist_ok=True)
        self._wandb = wandb
        self._run = wandb.init(project="scisr", name=name, dir=str(folder), config=dict(settings))

    def record(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, step: int, image: NDArray[np.uint8]) -> None:
        self._run.log({"input, network, truth": self._wandb.Image(image)}, step=step)

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    def __init__(self, name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        mlflow: Any = importlib.import_module("mlflow")
        self._mlflow = mlflow
        mlflow.start_run(run_name=name)
        mlflow.log_params({key: str(value)[:500] for key, value in settings.items()})

    def record(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def picture(self, step: int, image: NDArray[np.uint8]) -> None:
        self._mlflow.log_image(image, f"triptych_{step:07d}.png")

    def close(self) -> None:
        self._mlflow.end_run()


TRACKERS: dict[str, tuple[str, Any]] = {
    "tensorboard": ("tensorboard", _TensorBoard),
    "wandb": ("wandb", _WeightsAndBiases),
    "mlflow": ("mlflow", _MLflow),
}
"""Name -> the package it needs, and its class."""


def open_trackers(
    names: Sequence[str] | None, *, name: str, folder: Path, settings: Mapping[str, Any]
) -> list[Tracker]:
    """The trackers of a run.

    Args:
        names: some of :data:`TRACKERS`; None: TensorBoard where it is installed.
        name: of the run.
        folder: where those that write files write.
        settings: shown with the run.

    Raises:
        InputError: a name that is none, or a package that is not installed.
    """
    if names is None:
        names = ["tensorboard"] if importlib.util.find_spec("tensorboard") else []
    opened: list[Tracker] = []
    for wanted in names:
        if wanted not in TRACKERS:
            raise InputError(f"trackers: {wanted!r} is not one of {', '.join(TRACKERS)}")
        package, cls = TRACKERS[wanted]
        if importlib.util.find_spec(package) is None:
            raise InputError(f"trackers: {wanted} needs the package {package}; pip install {package}")
        opened.append(cls(name, folder, settings))
    return opened


def triptych(low: Tensor, made: Tensor, high: Tensor) -> NDArray[np.uint8]:
    """Input, result and truth side by side as a grey picture: first item and channel, middle slice, the truth's range.

    Args:
        low: ``(b, c, [z,] y, x)``.
        made: what the network made of it.
        high: the truth.
    """
    coarse = resample(low.float(), high.shape[2:], kernel="linear")
    planes = [_plane(values) for values in (coarse, made, high)]
    floor, top = float(planes[2].min()), float(planes[2].max())
    row = np.concatenate(planes, axis=1)
    shown: NDArray[np.uint8] = (255 * np.clip((row - floor) / max(top - floor, 1e-12), 0, 1)).astype(np.uint8)
    return shown


def _plane(values: Tensor) -> NDArray[np.float32]:
    image = values[0, 0].detach().float().cpu()
    plane: NDArray[np.float32] = (image if image.dim() == 2 else image[image.shape[0] // 2]).numpy()
    return plane
