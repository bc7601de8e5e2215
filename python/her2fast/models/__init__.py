# SPDX-License-Identifier: Apache-2.0
"""Model and method packages: configuration, hashes, trust, and the runner of models.

Importing this package imports neither torch nor pydantic; its modules do.
"""
