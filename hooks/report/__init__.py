"""What a check says of a start: findings and a table by layer, as text, JSON and a page. Pure: no torch, no I/O."""

from initscope.hooks.report.report import Report
from initscope.hooks.report.rows import LayerRow, Passed, rows_of

__all__ = ["LayerRow", "Passed", "Report", "rows_of"]
