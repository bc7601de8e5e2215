# SPDX-License-Identifier: Apache-2.0
"""One module per published method: which native session a package asks for."""
