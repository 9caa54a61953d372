"""`python -m minivdm`: see `minivdm.cli.main`."""

import sys

from minivdm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
