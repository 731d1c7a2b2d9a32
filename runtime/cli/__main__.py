"""`python -m flowrun`: the command `flowrun` without an installed script."""

import sys

if not sys.flags.safe_path:
    # `-m` puts the current folder first, where a file such as http.py hides Python's own module.
    sys.path.append(sys.path.pop(0))

from flowrun.runtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
