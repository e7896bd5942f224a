"""The whole workflow file: which steps there are, and which go together."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from sciSR.config.schema import (
    ConsistencySection,
    DegradeSection,
    EvaluateSection,
    FinishSection,
    InputSection,
    OutputSection,
    ReportSection,
    Section,
    UpscaleSection,
)
from sciSR.config.train import TrainSection

__all__ = ["Workflow"]


class Workflow(Section):
    """A run: train, upscale, consistency, finish (or degrade), evaluate, report; a step not named is not done."""

    input: InputSection | None = None
    """What is read."""
    train: TrainSection | None = None
    """Make a network first."""
    upscale: UpscaleSection | None = None
    """Refine the input."""
    consistency: ConsistencySection | None = None
    """Make the result explain its input."""
    finish: FinishSection | None = None
    """Denoise or sharpen the result."""
    degrade: DegradeSection | None = None
    """Coarsen the input."""
    evaluate: EvaluateSection | None = None
    """Say how far to trust the result."""
    report: ReportSection | None = None
    """Draw pictures."""
    output: OutputSection = OutputSection()
    """Where results go."""

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        if self.upscale is not None and self.degrade is not None:
            raise ValueError("upscale and degrade are two runs; to judge an upscaling use evaluate: {protocol: wald}")
        if self.train is None and self.upscale is None and self.degrade is None:
            raise ValueError("no step to do; expected a section train, upscale or degrade")
        if (self.upscale is not None or self.degrade is not None) and self.input is None:
            raise ValueError("the key input is missing; name a file, a pattern or a list (--set input=FILE)")
        if self.train is not None and not self.train.references and self.input is None:
            raise ValueError("train.references and input are both missing; name the scan to learn from")
        if self.upscale is not None and self.upscale.network is None and self.train is None:
            raise ValueError("upscale.network is missing; name shipped weights, a file or a classical method")
        if self.upscale is None and (self.evaluate or self.report or self.consistency or self.finish):
            raise ValueError("consistency, finish, evaluate and report need an upscale step")
        return self
