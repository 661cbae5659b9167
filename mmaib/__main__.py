"""``python -m mmaib COMMAND``, the `mmaib` command."""

import sys

from mmaib.cli.main import main

sys.exit(main())
