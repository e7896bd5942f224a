"""The table that an evaluation gives: rows of numbers with what they mean, as text, Markdown and plain values.

Rows of one subject each; over several subjects the table tells means with bootstrap confidence intervals
(Efron and Tibshirani 1993, doi:10.1201/9780429246593: percentiles of the means of resampled subjects).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, NamedTuple

import numpy as np

from sciSR.errors import InputError

__all__ = ["COLUMNS", "Column", "Interval", "Score", "ScoreTable", "plain_text"]


class Column(NamedTuple):
    """One number of a row: its heading, its unit (``"value"``: the raster's own), and how it is read."""

    title: str
    unit: str
    digits: int
    better: str


COLUMNS: dict[str, Column] = {
    "psnr": Column("PSNR", "dB", 2, "higher"),
    "ssim": Column("SSIM", "", 4, "higher"),
    "mae": Column("MAE", "value", 3, "lower"),
    "rmse": Column("RMSE", "value", 3, "lower"),
    "nrmse": Column("NRMSE", "%", 3, "lower"),
    "bias": Column("bias", "value", 3, "nearer 0"),
    "ergas": Column("ERGAS", "", 3, "lower"),
    "sam": Column("SAM", "°", 3, "lower"),
    "consistency": Column("consistency", "%", 3, "lower"),
}
"""Name of a metric -> its column. Percentages are of the data range; ``consistency`` is the RMSE of the result,
degraded again with the sensor, against the low-resolution input."""


class Interval(NamedTuple):
    """A mean over subjects and the ends of its confidence interval."""

    mean: float
    low: float
    high: float
    subjects: int


@dataclass(frozen=True)
class Score:
    """One row.

    Attributes:
        subject: name of the raster that was judged against.
        method: network or baseline.
        part: ``"all"``, or the channel or time step.
        region: where: ``"valid"`` (every pixel with a value), ``"foreground"`` or ``"mask"``.
        pixels: how many pixels were compared.
        values: metric -> number, by the names of :data:`COLUMNS`; fractions, not per cent.
    """

    subject: str
    method: str
    part: str
    region: str
    pixels: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class ScoreTable:
    """The scores of one or more subjects.

    Attributes:
        rows: one per subject, method, part and region.
        settings: what the numbers depend on: data range and where it came from, sensor, scale, crop, unit, …
        notes: sentences a reader of the table must know.

    Example:
        >>> row = Score("a", "cubic", "all", "valid", 100, {"psnr": 30.0, "ssim": 0.9})
        >>> print(ScoreTable((row,), {"data_range": 255.0}))
        method  region  PSNR [dB]    SSIM
        cubic   valid       30.00  0.9000
        data_range: 255
    """

    rows: tuple[Score, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def join(cls, tables: Iterable[ScoreTable]) -> ScoreTable:
        """One table of several subjects; settings that all share are kept, the others are listed by subject.

        Raises:
            InputError: no table, or two tables of one subject and method.
        """
        parts = list(tables)
        if not parts:
            raise InputError("scores: no table to join")
        rows = tuple(row for table in parts for row in table.rows)
        keys = [(row.subject, row.method, row.part, row.region) for row in rows]
        if len(set(keys)) != len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise InputError(f"scores: {' / '.join(twice)} came twice; give every subject its own name")
        shared = {
            key: value for key, value in parts[0].settings.items() if all(t.settings.get(key) == value for t in parts)
        }
        own = {
            table.rows[0].subject: {key: value for key, value in table.settings.items() if key not in shared}
            for table in parts
            if table.rows and set(table.settings) - set(shared)
        }
        notes = dict.fromkeys(note for table in parts for note in table.notes)
        return cls(rows, shared | ({"per_subject": own} if own else {}), tuple(notes))

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects, in order."""
        return tuple(dict.fromkeys(row.subject for row in self.rows))

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, in order."""
        return tuple(dict.fromkeys(row.method for row in self.rows))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that some row has, in the order of :data:`COLUMNS`."""
        return tuple(name for name in COLUMNS if any(name in row.values for row in self.rows))

    def value(
        self, method: str, metric: str, *, part: str = "all", region: str = "valid", subject: str | None = None
    ) -> float:
        """One number; the mean over subjects if ``subject`` is None.

        Raises:
            InputError: there is no such row.
        """
        found = list(self._by_subject(method, metric, part, region, subject).values())
        if not found:
            raise InputError(
                f"scores: no {metric} of {method} ({part}, {region}); methods are {', '.join(self.methods)}"
            )
        return float(np.mean(found))

    def interval(
        self,
        method: str,
        metric: str,
        *,
        minus: str | None = None,
        part: str = "all",
        region: str = "valid",
        confidence: float = 0.95,
        resamples: int = 10_000,
        seed: int = 0,
    ) -> Interval:
        """Mean over subjects with its bootstrap confidence interval.

        Args:
            method: the method.
            metric: the metric.
            minus: another method: then the interval is that of the difference, subject by subject.
            part: as in the rows.
            region: as in the rows.
            confidence: share of resampled means inside the interval.
            resamples: how many sets of subjects are drawn.
            seed: of the draw.

        Returns:
            The interval; without ends where a subject's number is not finite (PSNR of equal images).

        Raises:
            InputError: fewer than two subjects have the number.
        """
        mine = self._by_subject(method, metric, part, region)
        if minus is not None:
            other = self._by_subject(minus, metric, part, region)
            mine = {subject: value - other[subject] for subject, value in mine.items() if subject in other}
        values = np.array(list(mine.values()))
        if len(values) < 2:
            raise InputError(f"scores: {len(values)} subjects have {metric} of {method}; an interval needs two or more")
        if not np.isfinite(values).all():
            return Interval(float(values.mean()), math.nan, math.nan, len(values))
        draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
        tail = 50 * (1 - confidence)
        low, high = np.percentile(values[draws].mean(axis=1), [tail, 100 - tail])
        return Interval(float(values.mean()), float(low), float(high), len(values))

    def _by_subject(
        self, method: str, metric: str, part: str, region: str, subject: str | None = None
    ) -> dict[str, float]:
        return {
            row.subject: row.values[metric]
            for row in self.rows
            if (row.method, row.part, row.region) == (method, part, region)
            and metric in row.values
            and subject in (None, row.subject)
        }

    def __str__(self) -> str:
        head, body = self._cells()
        widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
        labels = len(head) - len(self.metrics)
        lines = [
            "  ".join(
                cell.ljust(w) if i < labels else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in [head, *body]
        ]
        return "\n".join([*lines, *self._footer()])

    def to_markdown(self) -> str:
        """The table in Markdown, with its settings and notes below."""
        head, body = self._cells()
        labels = len(head) - len(self.metrics)
        rule = ["---"] * labels + ["---:"] * len(self.metrics)
        lines = ["| " + " | ".join(line) + " |" for line in [head, rule, *body]]
        return "\n".join([*lines, "", *(f"- {line}" for line in self._footer())])

    def _repr_html_(self) -> str:
        """The table as a notebook shows it."""
        head, body = self._cells()
        labels = len(head) - len(self.metrics)
        lines = ["<table><tr>", *(f"<th>{escape(cell)}</th>" for cell in head), "</tr>"]
        for line in body:
            cells = (f'<td align="{"left" if i < labels else "right"}">{escape(c)}</td>' for i, c in enumerate(line))
            lines += ["<tr>", *cells, "</tr>"]
        return "".join([*lines, "</table>", "<br>".join(escape(line) for line in self._footer())])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record; infinite and undefined numbers become None."""
        rows = [asdict(row) | {"values": _finite(row.values)} for row in self.rows]
        result: dict[str, Any] = {"rows": rows, "settings": dict(self.settings), "notes": list(self.notes)}
        if len(self.subjects) > 1:
            names = ("method", "part", "region", "metric")
            result["intervals"] = [
                dict(zip(names, key, strict=True)) | _finite(interval._asdict())
                for key, interval in self._intervals().items()
            ]
        return result

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Heading and rows as text, the columns that never vary left out: what every form of the table shows."""
        return self._cells()

    def _intervals(self) -> dict[tuple[str, str, str, str], Interval]:
        keys = dict.fromkeys((row.method, row.part, row.region) for row in self.rows)
        found = {}
        for method, part, region in keys:
            for metric in self.metrics:
                if len(self._by_subject(method, metric, part, region)) > 1:
                    found[method, part, region, metric] = self.interval(method, metric, part=part, region=region)
        return found

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        labels = ["method", *(name for name in ("subject", "part") if len({getattr(r, name) for r in self.rows}) > 1)]
        labels.append("region")
        digits = {name: self._digits(name) for name in self.metrics}
        head = [*labels, *(_heading(name, self.settings.get("unit")) for name in self.metrics)]
        body = []
        for row in self.rows:
            numbers = [_number(row.values.get(name), COLUMNS[name], digits[name]) for name in self.metrics]
            body.append([*(str(getattr(row, label)) for label in labels), *numbers])
        intervals = self._intervals()
        for method, part, region in dict.fromkeys(key[:3] for key in intervals):
            shown = {"method": method, "subject": f"mean of {len(self.subjects)}", "part": part, "region": region}
            found = ((name, intervals.get((method, part, region, name))) for name in self.metrics)
            numbers = [_spread(interval, COLUMNS[name], digits[name]) for name, interval in found]
            body.append([*(shown[label] for label in labels), *numbers])
        return head, body

    def _digits(self, metric: str) -> int:
        """Digits after the point: physical values show four significant ones of the column's largest error."""
        column = COLUMNS[metric]
        source = "rmse" if metric == "bias" and "rmse" in self.metrics else metric
        sizes = [abs(row.values[source]) for row in self.rows if source in row.values]
        largest = max((size for size in sizes if math.isfinite(size)), default=0.0)
        if column.unit != "value" or largest == 0:
            return column.digits
        return min(6, max(0, 3 - math.floor(math.log10(largest))))

    def _footer(self) -> list[str]:
        told = [f"{key}: {plain_text(value)}" for key, value in self.settings.items() if key != "per_subject"]
        return [*told, *self.notes]


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def _heading(name: str, unit: str | None) -> str:
    column = COLUMNS[name]
    shown = unit if column.unit == "value" else column.unit
    return f"{column.title} [{shown}]" if shown else column.title


def _number(value: float | None, column: Column, digits: int) -> str:
    if value is None:
        return "–"
    return f"{value * (100 if column.unit == '%' else 1):z.{digits}f}"


def _spread(interval: Interval | None, column: Column, digits: int) -> str:
    if interval is None:
        return "–"
    mean, low, high = (_number(value, column, digits) for value in interval[:3])
    return f"{mean} [{low}, {high}]"


def plain_text(value: Any) -> str:
    """A value of a setting or a record in words.

    Example:
        >>> plain_text({"z": 4.0, "y": [1, 2.5]})
        'z=4, y=1, 2.5'
    """
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={plain_text(part)}" for key, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(plain_text(part) for part in value)
    return str(value)
