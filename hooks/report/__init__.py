"""What a check says of a start: findings and a table by layer, as text, JSON and a page. Pure: no torch, no I/O."""

from initscope.hooks.report.report import Report
from initscope.hooks.report.rows import BlockRow, LayerRow, Passed, blocks_of, rows_of

__all__ = ["BlockRow", "LayerRow", "Passed", "Report", "blocks_of", "rows_of"]
