"""``python -m smoothinfer`` is the command line."""

import sys

from smoothinfer.cli import main

sys.exit(main())
