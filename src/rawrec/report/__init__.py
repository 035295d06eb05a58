"""One self-contained HTML page per run."""

from rawrec.report.build import build_report

__all__ = ["build_report"]
