# SPDX-License-Identifier: Apache-2.0
"""Files made of a decision: pure functions from records and patch outcomes to bytes.

Nothing here decides anything: scores, areas and flags come from the core.
"""
