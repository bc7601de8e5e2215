# SPDX-License-Identifier: Apache-2.0
"""Slow, readable NumPy twins of every kernel: the definition the native code is tested against."""
