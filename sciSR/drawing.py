"""The report step: the picture and the page beside an output."""

from __future__ import annotations

from pathlib import Path

from sciSR.batch import Job
from sciSR.config import ReportSection
from sciSR.evaluation import ScoreTable, WaldResult
from sciSR.raster import Raster
from sciSR.record import RunRecord
from sciSR.regrid import regrid
from sciSR.report import draw_picture

__all__ = ["draw_report"]


def draw_report(
    section: ReportSection,
    job: Job,
    raster: Raster,
    written: Raster,
    judged: WaldResult | None,
    table: ScoreTable | None,
    record: RunRecord,
) -> list[Path]:
    """Draw what the section asks for; gives the files.

    Args:
        section: what is wanted.
        job: where.
        raster: the input.
        written: the output, opened again.
        judged: what Wald's protocol gave, or None.
        table: the scores, or None.
        record: the run record so far.
    """
    files = []
    model = record.workflow["upscale"]["network"]
    cubic = regrid(raster, written.grid.shape, kernel="cubic")
    if section.picture:
        path = job.beside(".png")
        files.append(draw_picture(path, input=raster, cubic=cubic, result=written, wald=judged, method=model))
    return files
