"""``python -m smoothinfer.cli``."""

import sys

from smoothinfer.cli import main

sys.exit(main())
