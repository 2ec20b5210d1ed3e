"""What `verify` found, as a page, as JSON and as JUnit: files that stand by themselves."""

from deploydcn.report.sampling import Sampling, compare_sampling
from deploydcn.report.write import check_report_path, write_report

__all__ = ["Sampling", "check_report_path", "compare_sampling", "write_report"]
