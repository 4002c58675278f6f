"""The report of a run: what was traded, what it came to, and the chain of the last trade."""

from botplatform.report.chain import ChainNode, chain_tree
from botplatform.report.model import LegRow, Report, Row, build_report

__all__ = ["ChainNode", "LegRow", "Report", "Row", "build_report", "chain_tree"]
