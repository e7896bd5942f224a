"""Networks on CPUs through OpenVINO (optional extra): float32, and int8 by post-training quantisation.

The quantiser is calibrated on patches of the very raster that is to be refined. As with torch, only the residual runs
there; the interpolation that it is added to stays in float32.
"""

from __future__ import annotations

import contextlib
import io
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciSR.backends import prepare
from sciSR.errors import InputError
from sciSR.networks.borders import pad_to_multiple
from sciSR.networks.spec import SRNetwork
from sciSR.pipeline import core_count

__all__ = ["OpenVinoRunner", "prepare_openvino"]

_HINTS = {"float32": "f32", "bf16": "bf16", "int8": "f32"}
"""OpenVINO's type for what is not quantised."""


_LAYERS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")


class _Residual(nn.Module):
    def __init__(self, network: SRNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        detail = self.network.residual(x)
        assert detail is not None
        return detail


@dataclass
class OpenVinoRunner:
    """A network compiled by OpenVINO; called like :class:`sciSR.backends.Runner`.

    Attributes:
        network: the network in float32 torch, for its interpolation and spec.
        precision: of the residual.
        streams: tiles that run at once, each on its share of the cores.
    """

    network: SRNetwork
    model: Any
    precision: str
    streams: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    backend: str = "openvino"

    def __post_init__(self) -> None:
        self._compiled: dict[tuple[int, ...], Any] = {}
        self._lock = threading.Lock()
        self._requests = threading.local()

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Refined values ``(b, c, [z,] y, x)`` float32 of values ``(b, c, [z,] y, x)`` float32."""
        detail = np.concatenate([self._residual(values[i : i + 1]) for i in range(len(values))])
        with torch.inference_mode():
            base = self.network.interpolate(torch.from_numpy(values))
        return detail if base is None else base.numpy() + detail

    def record(self) -> dict[str, Any]:
        """Plain values for the run record."""
        return {"backend": self.backend, "device": "cpu", "precision": self.precision}

    def _residual(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        whole = _padded(values, self.network.spec.alignment)
        request = self._request(whole.shape)
        result: NDArray[np.float32] = np.array(request.infer([whole])[0], dtype=np.float32)
        fine = zip(values.shape[2:], self.network.spec.scale, strict=True)
        keep = (slice(None), slice(None), *(slice(0, n * s) for n, s in fine))
        return result[keep]

    def _request(self, shape: tuple[int, ...]) -> Any:
        """This thread's request for inputs of this shape; the first shape is compiled fixed, others share one model."""
        own = self._requests.__dict__.setdefault("by_shape", {})
        if shape not in own:
            with self._lock:
                key = shape if not self._compiled or shape in self._compiled else ()
                if key not in self._compiled:
                    self._compiled[key] = self._compile(key)
            own[shape] = self._compiled[key].create_infer_request()
        return own[shape]

    def _compile(self, shape: tuple[int, ...]) -> Any:
        openvino = _imported("openvino")
        model = self.model.clone()
        if shape:
            model.reshape(list(shape))
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "INFERENCE_NUM_THREADS": core_count(),
            "NUM_STREAMS": self.streams,
        }
        return openvino.Core().compile_model(model, "CPU", settings)

    def __getstate__(self) -> dict[str, Any]:
        """Compiled models and requests do not travel between processes."""
        raise InputError(
            "openvino: a network compiled by OpenVINO cannot be sent to a cluster; use backend torch there"
        )


def prepare_openvino(
    network: SRNetwork,
    precision: str,
    *,
    streams: int,
    calibration: Callable[[], Sequence[NDArray[np.float32]]],
) -> OpenVinoRunner:
    """The network compiled by OpenVINO.

    Args:
        network: what to run.
        precision: ``"float32"``, ``"bf16"`` or ``"int8"``.
        streams: tiles that run at once.
        calibration: for int8: normalised patches ``(b, c, [z,] y, x)`` of the raster that is to be refined.

    Raises:
        InputError: OpenVINO (or, for int8, NNCF) is not installed, the precision is not known, or the network has no
            residual to compile.
    """
    if precision not in _HINTS:
        raise InputError(f"precision: {precision!r} came; OpenVINO here takes {', '.join(_HINTS)}")
    openvino = _imported("openvino")
    full = prepare(network, torch.device("cpu"), "float32").network
    spec = network.spec
    example = torch.zeros(1, spec.in_channels, *[16 * a for a in spec.alignment])
    with torch.no_grad():
        if full.residual(example) is None:
            raise InputError(f"openvino: {network.family} has no trained part to compile; use backend torch")
        free = openvino.PartialShape([1, spec.in_channels, *[-1] * spec.ndim])
        model = openvino.convert_model(_Residual(full), example_input=example, input=[free])
    if precision == "int8":
        model = _quantised(model, calibration(), spec.alignment)
    return OpenVinoRunner(full, model, precision, streams)


def _quantised(model: Any, patches: Sequence[NDArray[np.float32]], alignment: Sequence[int]) -> Any:
    """int8 inside; in float stay the first and the last layer and the sums of skips, which carry the values themselves.

    Ranges are the extremes seen, not quantiles: what is brighter than usual (a roof, bone) must not be cut. Biases stay
    as they were trained: the quantiser's correction of them, made from channel means alone, takes up to 7 dB away.
    """
    if not patches:
        raise InputError("precision: int8 needs patches without holes to calibrate on, and there are none; use float32")
    nncf = _imported("nncf")
    parameters = _imported("nncf.quantization.advanced_parameters")
    ranges = _imported("nncf.quantization.range_estimator").RangeEstimatorParametersSet.MINMAX
    logging.getLogger("nncf").setLevel(logging.ERROR)
    singles = [_padded(one[None], alignment) for patch in patches for one in patch]
    with contextlib.redirect_stdout(io.StringIO()):  # it draws progress bars there
        return nncf.quantize(
            model,
            nncf.Dataset(singles),
            subset_size=len(singles),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=_kept_in_float(model)),
            advanced_parameters=parameters.AdvancedQuantizationParameters(
                activations_range_estimator_params=ranges, disable_bias_correction=True
            ),
        )


def _kept_in_float(model: Any) -> list[str]:
    """Names of the first and the last layer, if there are others, and of the additions of two images."""
    operations = model.get_ordered_ops()
    layers = [op.get_friendly_name() for op in operations if op.get_type_name() in _LAYERS]
    ends = {layers[0], layers[-1]} if len(layers) > 2 else set()
    sums = {
        op.get_friendly_name()
        for op in operations
        if op.get_type_name() == "Add" and all(value.get_partial_shape().is_dynamic for value in op.inputs())
    }  # a bias has a fixed shape, images of any size have not
    return sorted(ends | sums)


def _padded(values: NDArray[np.float32], alignment: Sequence[int]) -> NDArray[np.float32]:
    """Far edges mirrored up to whole strides, as the network does: its own padding is traced for one size alone."""
    return np.ascontiguousarray(pad_to_multiple(torch.from_numpy(values), max(alignment)).numpy())


def _imported(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"backend: {name} is not installed; pip install 'scisr[openvino]'") from error
