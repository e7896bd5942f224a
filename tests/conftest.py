"""What all tests share: one thread per worker, the repository's folders, and the full data where it is at hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Two workers with one thread each use two cores; must be set before numpy and torch are first imported.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "agg")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture
def two_threads() -> Iterator[None]:
    """PyTorch with two threads, which the test leaves as they are."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    left = torch.get_num_threads()
    torch.set_num_threads(threads)
    assert left == 2, "the number of threads has changed"


@pytest.fixture(scope="session")
def crops() -> Path:
    """Folder of the real crops that ship with the project."""
    return ROOT / "examples" / "data"


@pytest.fixture(scope="session")
def full_data() -> Path:
    """Folder of the full scans and scenes; skips where it is not at hand."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the full scans and scenes are not on this machine")
    return folder
