"""What people look at before they read: a picture of input, result and error, and a report in one file."""

from __future__ import annotations

from sciSR.report.page import write_html
from sciSR.report.picture import draw_picture

__all__ = ["draw_picture", "write_html"]
