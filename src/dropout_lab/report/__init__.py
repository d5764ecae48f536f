"""The report of a folder of runs: a table, and a page with pictures that opens without a network."""

from dropout_lab.report.report import Report, build

__all__ = ["Report", "build"]
