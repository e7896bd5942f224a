"""The training data of the shipped weights in small: ``python -m benchmarks.gpu.pack`` writes ``.gpu``.

Each array is cropped, delta-coded and packed with xz; ``manifest.json`` holds the settings of
``workflows/train_*.yaml`` and where the arrays lie, so that a machine without GDAL can train from them.
:func:`references` reads them again.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".gpu"
WEIGHTS = {"mri-x2": "train_mri_x2", "mri-z4": "train_mri_z4", "ct-x2": "train_ct_x2", "s2-x2": "train_s2_x2"}
"""Weights -> the workflow that makes them."""

CROPS: dict[str, dict[str, tuple[int, int]]] = {
    "t1_head_0.7mm_pddl.nii.gz": {"z": (0, 344), "y": (3, 370)},
    "t1_head_1mm_pycortex.nii.gz": {"x": (40, 216)},
    "sentinel2_10m_b02b03b04b08.tif": {"y": (200, 1700)},
}
"""What is taken along of a raster, so that all fits."""


def main() -> None:
    """Pack what the training workflows name."""
    from sciSR.config import load_workflow

    FOLDER.mkdir(exist_ok=True)
    packed: dict[str, dict[str, Any]] = {}
    manifest: dict[str, Any] = {}
    for name, file in WEIGHTS.items():
        section = load_workflow(ROOT / "workflows" / f"{file}.yaml").train
        assert section is not None
        settings = section.model_dump(mode="json", exclude={"references", "validation", "output"})
        manifest[name] = {"settings": settings}
        for role in ("references", "validation"):
            manifest[name][role] = [
                _packed(path, reference, packed) for reference in getattr(section, role) for path in reference.path
            ]
    manifest["arrays"] = packed
    (FOLDER / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    size = sum(file.stat().st_size for file in FOLDER.iterdir()) / 2**20
    print(f"{len(packed)} arrays, {size:.1f} MiB in {FOLDER}")


def _packed(path: str, reference: Any, packed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Pack a raster once, and say how it is used."""
    from sciSR.io import open_raster

    # in-plane oversampled scans are packed halved: it is what they are used at
    halved = path.split("/")[-1].startswith("ct_chest")
    raster = open_raster(ROOT / path)
    crop = CROPS.get(raster.name, {})
    key = raster.name.split(".")[0] + ("_halved" if halved else "")
    if key not in packed:
        part = raster.crop(**{axis: slice(*span) for axis, span in crop.items()})
        values = np.ascontiguousarray(part.read().values)
        spacing = [part.grid.spacing[axis] for axis in part.grid.axes]
        if halved:
            values = _halved(values, reference.coarsen)
            spacing = [s * reference.coarsen.get(a, 1) for s, a in zip(spacing, part.grid.axes, strict=True)]
        (FOLDER / f"{key}.xz").write_bytes(lzma.compress(values.tobytes(), lzma.FORMAT_XZ, filters=_filters(values)))
        packed[key] = {"dtype": values.dtype.name, "shape": values.shape, "axes": part.axes, "spacing": spacing}
    held = reference.held_out
    if held:
        held = {axis: [v - crop.get(axis, (0, 0))[0] for v in span] for axis, span in held.items()}
    return {
        "array": key,
        "coarsen": {} if halved else dict(reference.coarsen),
        "weight": reference.weight,
        "bands": reference.bands,
        "held_out": held,
    }


def _halved(values: np.ndarray[Any, Any], factors: dict[str, float]) -> np.ndarray[Any, Any]:
    import torch

    from sciSR.resampling import resample

    shape = [round(n / factors.get(axis, 1)) for n, axis in zip(values.shape, "zyx", strict=True)]
    fine = torch.from_numpy(values.astype(np.float32))[None, None]
    return resample(fine, shape)[0, 0].round().numpy().astype(values.dtype)


def _filters(values: np.ndarray[Any, Any]) -> list[dict[str, int]]:
    return [{"id": lzma.FILTER_DELTA, "dist": values.itemsize}, {"id": lzma.FILTER_LZMA2, "preset": 6}]


def load(key: str) -> np.ndarray[Any, Any]:
    """A packed array."""
    facts = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))["arrays"][key]
    raw = lzma.decompress((FOLDER / f"{key}.xz").read_bytes())
    return np.frombuffer(raw, dtype=facts["dtype"]).reshape(facts["shape"]).copy()


def references(name: str, role: str, most: int | None = None) -> list[Any]:
    """The references of weights, as ``train()`` takes them; ``role`` is references or validation.

    With ``most``: of each only a square or cube of so many pixels in the middle, of which nothing is held out by name.
    """
    from sciSR.raster import Raster
    from sciSR.sampling import Reference

    manifest = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
    made = []
    for entry in manifest[name][role]:
        facts = manifest["arrays"][entry["array"]]
        affine = np.diag([*facts["spacing"][::-1], 1.0])
        values = load(entry["array"])
        if most is not None:
            first = 1 if "c" in facts["axes"] else 0
            side = round(most ** (1 / (values.ndim - first)))
            middle = (slice(max(0, (n - side) // 2), (n + side) // 2) for n in values.shape[first:])
            values = np.ascontiguousarray(values[(slice(None),) * first + tuple(middle)])
        raster = Raster.from_array(values, affine=affine, axes=tuple(facts["axes"]), name=entry["array"])
        held = entry["held_out"] if most is None else None
        held = held and {axis: tuple(span) for axis, span in held.items()}
        bands = entry["bands"] and tuple(entry["bands"])
        made.append(Reference(raster, coarsen=entry["coarsen"], weight=entry["weight"], bands=bands, held_out=held))
    return made


def settings(name: str) -> dict[str, Any]:
    """Keyword arguments of ``train()`` for weights, as their workflow has them."""
    manifest = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = manifest[name]["settings"]
    return found


if __name__ == "__main__":
    main()
