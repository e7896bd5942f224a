"""Devices by name, pools of them, compiled networks, tiles that shrink to fit."""

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from sciSR import backends
from sciSR.backends import RunnerPool, _turn, frozen, has_fast_bfloat16, pick_device, pick_devices, prepare
from sciSR.errors import InputError
from sciSR.inference import upscale
from sciSR.networks import build_network
from sciSR.tiles import worker_count
from sciSR.tiling import TilePlan
from tests.test_inference import _network, _scene, _streamed


def test_devices_by_name() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_devices("cpu, cpu") == [torch.device("cpu")] * 2
    with pytest.raises(InputError, match="no device name"):
        pick_device("toaster")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA device"):
            pick_device("cuda:3")


@pytest.mark.parametrize(
    ("flags", "fast"),
    [
        ("fpu avx512f avx512_bf16 amx_bf16 avx512_fp16 amx_tile amx_int8", True),
        ("fpu avx512f avx512_bf16", False),
        ("fpu amx_tile amx_int8", False),
    ],
)
def test_bfloat16_is_fast_with_matrix_units(
    flags: str, fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nvmx flags\t: amx\n\nprocessor\t: 1\n")
    monkeypatch.setattr(backends, "Path", lambda path: tmp_path / Path(path).name)
    backends._processor_flags.cache_clear()
    try:
        assert has_fast_bfloat16(torch.device("cpu")) is fast
        assert not has_fast_bfloat16(torch.device("meta"))
        backends._processor_flags.cache_clear()
        (tmp_path / "cpuinfo").unlink()
        assert not has_fast_bfloat16(torch.device("cpu"))
    finally:
        backends._processor_flags.cache_clear()


def test_a_pool_of_devices_gives_the_values_of_one() -> None:
    network = _network(ndim=2, in_channels=4, scale=2)
    one, _ = _streamed(upscale(_scene(), network, device="cpu", tile=16, precision="float32"))
    result = upscale(_scene(), network, device="cpu,cpu", tile=16, precision="float32")
    two, _ = _streamed(result)
    np.testing.assert_array_equal(one, two)
    assert result.source.record()["devices"] == 2  # type: ignore[attr-defined]


def test_runners_and_pools_travel_to_other_processes() -> None:
    network = _network(ndim=2, in_channels=1, scale=2)
    x = np.random.default_rng(0).normal(size=(1, 1, 9, 9)).astype(np.float32)
    runner = prepare(network, torch.device("cpu"), "bf16")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(runner))(x), runner(x))
    pool = RunnerPool([runner, runner])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pool))(x), runner(x))


@pytest.mark.slow
def test_a_compiled_network_agrees() -> None:
    network = _network(ndim=2, in_channels=4, scale=2)
    plain, valid = _streamed(upscale(_scene(), network, precision="float32", tile=None))
    result = upscale(_scene(), network, precision="float32", tile=None, backend="compile")
    compiled, _ = _streamed(result)
    assert np.abs(compiled - plain)[valid].max() <= 4e-6 * np.ptp(plain[valid])
    assert result.source.record()["backend"] == "compile"  # type: ignore[attr-defined]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_cuda_agrees_with_the_cpu(precision: str) -> None:
    network = _network(ndim=2, in_channels=4, scale=2)
    cpu, valid = _streamed(upscale(_scene(), network, device="cpu", precision="float32"))
    cuda, _ = _streamed(upscale(_scene(), network, device="cuda", precision=precision, tile=32))  # type: ignore[arg-type]
    limit = 1e-4 if precision == "float32" else 3e-2
    assert np.abs(cuda - cpu)[valid].max() <= limit * np.ptp(cpu[valid])


def test_only_a_frozen_network_is_shared() -> None:
    network = build_network("edsr", ndim=2, in_channels=1, scale=2, features=8, blocks=1)
    device = torch.device("cpu")
    one = prepare(network, device, "float32").network
    assert one is not network
    assert all(p.requires_grad for p in network.parameters())
    assert prepare(frozen(network), device, "float32").network is network
    network.train()
    assert prepare(network, device, "float32").network is not network


def test_a_device_takes_two_calls_at_a_time() -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def call(_: int) -> None:
        nonlocal inside, most
        with _turn(torch.device("mps")):  # any device but a CPU; none is needed to wait for it
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.01)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(call, range(12)))
    assert (inside, most) == (0, 2)


@pytest.mark.parametrize(
    ("cores", "tiles", "devices", "wanted"),
    [(16, 100, 1, 12), (16, 3, 1, 3), (1, 100, 1, 2), (32, 100, 4, 32), (4, 9, 4, 8)],
)
def test_tiles_under_way_for_a_device(
    monkeypatch: pytest.MonkeyPatch, cores: int, tiles: int, devices: int, wanted: int
) -> None:
    monkeypatch.setattr("sciSR.tiles.core_count", lambda: cores)
    plan = TilePlan(shape=(16 * tiles,), tile=(16,), halo=(0,), scale=(2,), alignment=(1,))
    assert worker_count(torch.device("cuda"), plan, devices=devices) == wanted
