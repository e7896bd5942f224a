"""write_html(): picture, scores, geometry and settings in one file that fetches nothing from anywhere."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from sciSR.evaluation import COLUMNS, ScoreTable
from sciSR.evaluation.table import plain_text
from sciSR.files import whole_file
from sciSR.grid import RAS_MM
from sciSR.raster import Raster
from sciSR.report.views import anatomy

__all__ = ["write_html"]

_NOTICE = (
    "Super-resolved values are estimates by a model, not measurements. Detail that the input does not hold may be "
    "wrong or missing. Not for diagnosis, and not for any decision about a person."
)
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #1a1a1a; background: #fff;
       margin: 2rem auto; max-width: 92rem; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
p.sub { color: #555; margin: 0 0 1rem; }
p.notice { border-left: 4px solid #b35c00; background: #fff6ea; padding: .5rem .9rem; margin: 1rem 0; }
img { max-width: 100%; height: auto; border: 1px solid #ddd; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #e4e4e4; text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid #999; } td.n, th.n { text-align: right; }
td.best { font-weight: 700; color: #0a7d33; }
table table { margin: 0; } table table td, table table th { border: 0; padding: 0 .8rem 0 0; }
ul { padding-left: 1.2rem; color: #444; } code { font-size: .92em; overflow-wrap: anywhere; }
"""


def write_html(
    path: str | os.PathLike[str],
    *,
    input: Raster,
    result: Raster,
    picture: str | os.PathLike[str] | None = None,
    table: ScoreTable | None = None,
    consistency: float | None = None,
    settings: Mapping[str, Any] | None = None,
    record: Mapping[str, Any] | None = None,
    title: str | None = None,
) -> Path:
    """Write a report that a browser shows with nothing beside it.

    Args:
        path: the HTML file; it is replaced.
        input: the low-resolution raster; only its header is used.
        result: the super-resolved one; likewise.
        picture: a PNG to show, such as :func:`~sciSR.report.draw_picture` wrote.
        table: scores.
        consistency: RMSE of the result, degraded again, against the input, as a fraction of the data range.
        settings: the workflow or arguments, plain values.
        record: what was done: plan, network, versions, …; plain values.
        title: heading; default the input's name.

    Returns:
        The path written.
    """
    heading = title or input.name
    parts = [f"<h1>{escape(heading)}</h1>", f'<p class="sub">{escape(_summary(input, result))}</p>']
    parts.append(f'<p class="notice">{escape(_NOTICE)}</p>')
    if picture is not None:
        data = base64.b64encode(Path(picture).read_bytes()).decode("ascii")
        parts.append(f'<img alt="Input, result and errors of {escape(heading)}" src="data:image/png;base64,{data}">')
    if table is not None:
        parts += ["<h2>Scores</h2>", _scores(table)]
    if consistency is not None:
        parts += [
            "<h2>Data consistency</h2>",
            f"<p>Degraded again with the sensor, the result differs from the input by {100 * consistency:.4g} % of the "
            "data range (RMSE). Small is necessary, not sufficient: invented detail may be consistent too.</p>",
        ]
    parts += ["<h2>Geometry and values</h2>", _geometry(input, result)]
    for name, values in (("Settings", settings), ("Record", record)):
        if values:
            parts += [f"<h2>{name}</h2>", _nested(values)]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(heading)} · sciSR</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )
    target = Path(path)
    with whole_file(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def _summary(input: Raster, result: Raster) -> str:
    factors = [f"{axis} × {factor:.4g}" for axis, factor in result.grid.factors(input.grid).items() if factor != 1]
    return "Super-resolution by sciSR: " + (", ".join(factors) or "same pixel count")


def _scores(table: ScoreTable) -> str:
    """The table as HTML, the best value of each column and group in bold, and what the numbers depend on."""
    head, body = table.cells()
    labels = len(head) - len(table.metrics)
    best = _best(table)
    lines = ["<thead><tr>", *(_cell("th", cell, i >= labels) for i, cell in enumerate(head)), "</tr></thead><tbody>"]
    for row, cells in enumerate(body):
        lines.append("<tr>")
        for i, cell in enumerate(cells):
            chosen = i >= labels and (row, table.metrics[i - labels]) in best
            lines.append(_cell("td", cell, i >= labels, chosen))
        lines.append("</tr>")
    notes = [f"{key.replace('_', ' ')}: {plain_text(value)}" for key, value in table.settings.items()] + list(
        table.notes
    )
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<div class="wide"><table>{"".join(lines)}</tbody></table></div><ul>{listed}</ul>'


def _best(table: ScoreTable) -> set[tuple[int, str]]:
    """Row number and metric of the best value among the methods of each subject, part and region."""
    found = set()
    groups = dict.fromkeys((row.subject, row.part, row.region) for row in table.rows)
    for group in groups:
        rows = [(i, row) for i, row in enumerate(table.rows) if (row.subject, row.part, row.region) == group]
        for metric in table.metrics:
            known = [(i, row.values[metric]) for i, row in rows if metric in row.values]
            if len(known) < 2:
                continue
            better = COLUMNS[metric].better
            ranked = sorted((value if better == "higher" else -abs(value), i) for i, value in known)
            found.add((ranked[-1][1], metric))
    return found


def _cell(tag: str, text: str, number: bool, best: bool = False) -> str:
    classes = " ".join(name for name, on in (("n", number), ("best", best)) if on)
    return f"<{tag}{f' class={chr(34)}{classes}{chr(34)}' if classes else ''}>{escape(text)}</{tag}>"


def _geometry(input: Raster, result: Raster) -> str:
    first, second = _facts(input), _facts(result)
    head = "".join(_cell("th", cell, False) for cell in ("", "input", "result"))
    body = "".join(
        f"<tr><th>{escape(name)}</th>{_cell('td', value, False)}{_cell('td', second.get(name, ''), False)}</tr>"
        for name, value in first.items()
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _facts(raster: Raster) -> dict[str, str]:
    grid = raster.grid
    unit = f" {grid.unit}" if grid.unit else ""
    facts = {
        "name": raster.name,
        "shape": ", ".join(f"{axis} {n}" for axis, n in zip(raster.axes, raster.shape, strict=True)),
        "pixel size": ", ".join(f"{axis} {size:.6g}" for axis, size in grid.spacing.items()) + unit,
        "bounds": ", ".join(f"{value:.10g}" for value in grid.bounds),
        "frame": _frame(raster),
    }
    if len(grid.shape) == 3 and grid.frame == RAS_MM:
        opposite = {"R": "L", "A": "P", "S": "I"}
        run = {axis: letter if rises else opposite[letter] for letter, (axis, rises) in anatomy(grid).items()}
        facts["voxel axes run to"] = ", ".join(f"{axis} {run[axis]}" for axis in "xyz")
    labels = [channel.name for channel in raster.channels if channel.name]
    if labels:
        facts["channels"] = ", ".join(labels)
    nodata = {value for value in raster.encoding.nodata if value is not None}
    facts |= {
        "unit of values": raster.unit or "not stated",
        "stored type": raster.encoding.dtype,
        "nodata": ", ".join(f"{value:g}" for value in nodata) or "none",
    }
    return facts


def _frame(raster: Raster) -> str:
    frame = raster.grid.frame or "none"
    return frame if len(frame) <= 60 else frame.split('"')[1] if '"' in frame else frame[:60]


def _nested(values: Mapping[str, Any]) -> str:
    rows = []
    for key, value in values.items():
        if value is None or value == {} or value == []:
            continue
        shown = _nested(value) if isinstance(value, Mapping) else f"<code>{escape(plain_text(value))}</code>"
        rows.append(f"<tr><th>{escape(str(key))}</th><td>{shown}</td></tr>")
    return f"<table><tbody>{''.join(rows)}</tbody></table>"
