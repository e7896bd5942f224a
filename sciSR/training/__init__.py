"""Training: from fine rasters to a checkpoint, reproducibly, on one CPU or many GPUs."""

from sciSR.training.adversarial import Game
from sciSR.training.outputs import TrainingResult
from sciSR.training.rates import RateTest, try_rates
from sciSR.training.selfsupervised import train_self
from sciSR.training.supervised import train

__all__ = ["Game", "RateTest", "TrainingResult", "train", "train_self", "try_rates"]
