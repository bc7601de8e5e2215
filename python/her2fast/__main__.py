# SPDX-License-Identifier: Apache-2.0
"""`python -m her2fast`."""

from her2fast.cli import main

if __name__ == "__main__":
    main()
