"""What `verify` found, as text, and as files that stand by themselves: a page, JSON, JUnit."""

from deploydcn.report.sampling import Sampling, compare_sampling
from deploydcn.report.text import print_report
from deploydcn.report.write import check_report_path, write_report

__all__ = ["Sampling", "check_report_path", "compare_sampling", "print_report", "write_report"]
