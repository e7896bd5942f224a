"""Training: from fine rasters to a checkpoint, reproducibly, on one CPU or many GPUs."""

from sciSR.training.supervised import TrainingResult, train

__all__ = ["TrainingResult", "train"]
