# SPDX-License-Identifier: Apache-2.0
"""Slow, readable NumPy twins: what the native kernels are tested against."""
