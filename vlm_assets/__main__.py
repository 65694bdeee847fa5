"""`python -m vlm_assets up|demo|deploy`: what `make` calls."""

import sys

from vlm_assets.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
