"""The auditor: reads a log by sequence and counts what is missing, doubled, out of order or without a cause."""

from botplatform.audit.audit import Audit
from botplatform.audit.reading import audit_log
from botplatform.audit.report import AuditReport, Finding, Kind, Rule, Tally

__all__ = ["Audit", "AuditReport", "Finding", "Kind", "Rule", "Tally", "audit_log"]
