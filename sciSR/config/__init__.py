"""The workflow file: closed models of its keys, and how it is loaded, overridden, resolved and dumped."""

from sciSR.config.loading import dump_workflow, load_workflow, make_workflow, workflow_schema
from sciSR.config.reference import workflow_reference
from sciSR.config.schema import (
    ConsistencySection,
    DegradeSection,
    EvaluateSection,
    FinishSection,
    InputSection,
    NormalizationSection,
    OutputSection,
    ReportSection,
    Section,
    UpscaleSection,
)
from sciSR.config.train import AugmentSection, GameSection, ReferenceSection, SearchSection, TrainSection
from sciSR.config.values import parse_factors
from sciSR.config.workflow_file import Workflow

__all__ = [
    "AugmentSection",
    "ConsistencySection",
    "DegradeSection",
    "EvaluateSection",
    "FinishSection",
    "GameSection",
    "InputSection",
    "NormalizationSection",
    "OutputSection",
    "ReferenceSection",
    "ReportSection",
    "SearchSection",
    "Section",
    "TrainSection",
    "UpscaleSection",
    "Workflow",
    "dump_workflow",
    "load_workflow",
    "make_workflow",
    "parse_factors",
    "workflow_reference",
    "workflow_schema",
]
