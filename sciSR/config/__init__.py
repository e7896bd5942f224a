"""The workflow file: closed models of its keys, and how it is loaded, overridden, resolved and dumped."""

from sciSR.config.loading import dump_workflow, load_workflow, make_workflow, workflow_schema
from sciSR.config.schema import (
    DegradeSection,
    EvaluateSection,
    InputSection,
    OutputSection,
    ReportSection,
    Section,
    TrainSection,
    UpscaleSection,
    Workflow,
)
from sciSR.config.values import parse_factors

__all__ = [
    "DegradeSection",
    "EvaluateSection",
    "InputSection",
    "OutputSection",
    "ReportSection",
    "Section",
    "TrainSection",
    "UpscaleSection",
    "Workflow",
    "dump_workflow",
    "load_workflow",
    "make_workflow",
    "parse_factors",
    "workflow_schema",
]
