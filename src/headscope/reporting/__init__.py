"""From the record to the reader: tables and one page that stands alone."""

from headscope.reporting.page import write_report

__all__ = ["write_report"]
