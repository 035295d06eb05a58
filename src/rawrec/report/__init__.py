"""Self-contained HTML pages: of a run, of several side by side, of a dataset."""

from rawrec.report.build import build_report
from rawrec.report.compare_page import build_comparison

__all__ = ["build_comparison", "build_report"]
