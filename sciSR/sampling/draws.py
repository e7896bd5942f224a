"""Random numbers that are a function of (seed, step, sample), never of a process, a worker or what was drawn before.

So a run resumes exactly where it stopped without any state, and one process draws what eight of them would.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["generators", "uniforms"]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_DRAWS = 4096


def uniforms(seed: int, step: int, samples: Sequence[int], count: int) -> NDArray[np.float64]:
    """Numbers in ``[0, 1)``, shape ``(samples, count)``: draw k of a sample is always the same.

    The counter is hashed by the finaliser of SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195).

    Args:
        seed: of the run.
        step: of the training.
        samples: numbers of the samples in the global batch.
        count: draws per sample, at most 4096.

    Example:
        >>> bool((uniforms(0, 5, [3], 2)[0] == uniforms(0, 5, [2, 3], 4)[1, :2]).all())
        True
    """
    return (_hashes(seed, step, samples, count) >> np.uint64(11)).astype(np.float64) / 2.0**53


def generators(seed: int, step: int, samples: Sequence[int], device: torch.device) -> list[torch.Generator]:
    """One torch generator per sample on ``device``, seeded by (seed, step, sample)."""
    keys = _hashes(seed ^ 0x5EED, step, samples, 1)[:, 0] >> np.uint64(1)
    return [torch.Generator(device).manual_seed(int(key)) for key in keys]


def _hashes(seed: int, step: int, samples: Sequence[int], count: int) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        key = _mix(np.array([seed % 2**64], dtype=np.uint64) + _GAMMA)
        key = _mix(key ^ (np.uint64(step) * _GAMMA + np.uint64(1)))
        number = np.asarray(samples, dtype=np.uint64)[:, None] * np.uint64(_DRAWS) + np.arange(count).astype(np.uint64)
        return _mix(_mix(key + number.astype(np.uint64) * _GAMMA))


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
