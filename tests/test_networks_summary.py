"""The table of networks: parameters, reach and operations against counts by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from sciSR.networks import build_network, list_networks, list_weights
from sciSR.networks.figures import FIGURES, PAPERS, family_figures
from sciSR.networks.summary import summarise, summarise_families, summarise_weights


@pytest.mark.parametrize("ndim", [2, 3])
def test_operations_are_counted(ndim: int) -> None:
    network = build_network("srcnn", ndim=ndim, in_channels=1, scale=2, skip=None)
    row = summarise(network)
    kernels = 64 * 9**ndim + 32 * 64 + 32 * 5**ndim
    assert row.parameters == kernels + 64 + 32 + 1
    # two operations a weight on each fine pixel
    assert row.gflop == pytest.approx(2 * kernels / 1e3)


def test_a_layer_on_the_coarse_grid_counts_once_per_coarse_pixel() -> None:
    row = summarise(build_network("espcn", ndim=2, in_channels=1, scale=3, skip=None), "mine")
    assert row.gflop == pytest.approx(2 * (25 * 64 + 9 * 64 * 32 + 9 * 32 * 9) / 9 / 1e3)
    assert (row.name, row.family, row.scale, row.receptive_radius) == ("mine", "espcn", (3, 3), (4, 4))


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_figures_known_beforehand_are_those_of_the_networks(ndim: int) -> None:
    rows = summarise_families(ndim=ndim)
    assert [row.name for row in rows] == list_networks() == list(FIGURES) == sorted(PAPERS)
    known = {row.name: row for row in family_figures(ndim)}
    for row in rows:
        assert row.parameters > 1000
        assert row.paper
        assert row.exact_tiling == (row.receptive_radius is not None)
        json.dumps(row.to_dict())
        # if this fails, the network has changed: put the new figures into sciSR/networks/figures.py
        assert known[row.name] == replace(row, gflop=round(row.gflop, 2))


def test_the_list_of_models_needs_no_torch() -> None:
    code = "import sys; from sciSR.cli import main; code = main(['models']); sys.exit(code or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"  {family} " in done.stdout for family in list_networks())
    assert all(name in done.stdout for name in list_weights())


def test_shipped_weights_have_a_row_each() -> None:
    assert [row.name for row in summarise_weights()] == list_weights()
