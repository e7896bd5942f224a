"""Training: from fine rasters to a checkpoint, reproducibly, on one CPU or many GPUs."""

from sciSR.training.outputs import TrainingResult
from sciSR.training.supervised import train

__all__ = ["TrainingResult", "train"]
