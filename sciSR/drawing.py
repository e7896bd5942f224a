"""The report step: the picture and the page beside an output."""

from __future__ import annotations

from pathlib import Path

from sciSR.batch import Job
from sciSR.config import ReportSection
from sciSR.evaluation import ScoreTable, WaldResult
from sciSR.raster import Raster
from sciSR.record import RunRecord
from sciSR.regrid import regrid
from sciSR.report import draw_picture, write_html

__all__ = ["draw_report"]


def draw_report(
    section: ReportSection,
    job: Job,
    raster: Raster,
    written: Raster,
    judged: WaldResult | None,
    table: ScoreTable | None,
    record: RunRecord,
    method: str,
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
        method: what the network or method is called.
    """
    files = []
    cubic = regrid(raster, written.grid.shape, kernel="cubic")
    picture = None
    if section.picture:
        picture = draw_picture(
            job.beside(".png"), input=raster, cubic=cubic, result=written, wald=judged, method=method
        )
        files.append(picture)
    if section.html:
        facts = record.to_dict()
        page = write_html(
            job.beside(".html"),
            input=raster,
            result=written,
            picture=picture,
            table=table,
            consistency=None if record.consistency is None else record.consistency["relative"],
            settings=facts["workflow"],
            record={key: facts[key] for key in ("engine", "inputs", "weights", "output", "versions", "machine")},
            title=f"{raster.name}, refined by {method}",
        )
        files.append(page)
    return files
