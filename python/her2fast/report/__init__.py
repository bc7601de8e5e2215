# SPDX-License-Identifier: Apache-2.0
"""The report: one HTML file per slide that needs nothing else to be read."""

from her2fast.report.html import report_html

__all__ = ["report_html"]
