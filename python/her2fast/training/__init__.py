# SPDX-License-Identifier: Apache-2.0
"""Training: recipes that make model packages. Needs `pip install her2fast[train]`."""
