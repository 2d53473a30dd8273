"""From the record to the reader: tables, figures and one page that stands alone."""

from headscope.reporting.page import write_report
from headscope.reporting.pictures import save_figure

__all__ = ["save_figure", "write_report"]
