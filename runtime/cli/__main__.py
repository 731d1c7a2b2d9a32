"""`python -m flowrun.runtime.cli`: the command `flowrun` without an installed script."""

import sys

from flowrun.runtime.cli import main

sys.exit(main())
