"""Self-contained HTML pages: of a run, of several side by side, of a dataset."""

from rawrec.report.build import build_report
from rawrec.report.compare_page import build_comparison
from rawrec.report.data_page import build_data_page

__all__ = ["build_comparison", "build_data_page", "build_report"]
