"""`python -m espan.cli`, for launchers such as torchrun."""

import sys

from espan.cli import main

sys.exit(main())
