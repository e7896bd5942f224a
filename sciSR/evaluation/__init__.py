"""A result against its reference and against classical methods: a table, per subject, with confidence intervals.

:func:`evaluate` compares with a reference at hand; :func:`wald` makes one out of the input itself. Both take and give
rasters, compare physical values slab by slab in bounded memory, and say in the table what the numbers depend on.
"""

from __future__ import annotations

from sciSR.evaluation.comparison import check_comparable, evaluate
from sciSR.evaluation.protocol import WaldResult, wald
from sciSR.evaluation.table import COLUMNS, Interval, Score, ScoreTable

__all__ = ["COLUMNS", "Interval", "Score", "ScoreTable", "WaldResult", "check_comparable", "evaluate", "wald"]
