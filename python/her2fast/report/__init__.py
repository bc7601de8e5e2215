# SPDX-License-Identifier: Apache-2.0
"""The reports: HTML that needs nothing else to be read, for a slide and for all."""

from her2fast.report.cohort import cohort_html
from her2fast.report.html import report_html

__all__ = ["cohort_html", "report_html"]
