# SPDX-License-Identifier: Apache-2.0
"""Results against labels. Needs scikit-learn: `pip install her2fast[train]`."""
