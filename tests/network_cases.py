"""Every family, as small as it can be."""

from __future__ import annotations

from typing import Any

TINY: dict[str, dict[str, Any]] = {
    "carn": {"features": 4, "groups": 2},
    "drrn": {"features": 4, "units": 2},
    "edsr": {"features": 4, "blocks": 1},
    "encoder_decoder": {"features": 3, "depth": 2},
    "espcn": {"features": (5, 4)},
    "fsrcnn": {"features": 6, "shrink": 3, "layers": 1},
    "imdn": {"features": 8, "blocks": 1, "reduction": 4},
    "mdcsrn": {"growth": 2, "blocks": 2, "units": 2},
    "mobile": {"features": 4, "blocks": 1},
    "msrresnet": {"features": 4, "blocks": 1},
    "rcan": {"features": 4, "groups": 1, "blocks": 1, "reduction": 2},
    "rdn": {"features": 4, "growth": 3, "blocks": 2, "layers": 2},
    "rrdbnet": {"features": 4, "growth": 2, "blocks": 1},
    "srcnn": {"features": (5, 4)},
    "srresnet": {"features": 4, "blocks": 1},
    "srvgg": {"features": 4, "layers": 2},
    "swinir": {"features": 4, "depths": (2,), "heads": 2, "window": 4},
    "unet": {"features": 3, "depth": 2},
    "vdsr": {"features": 4, "layers": 4},
}
