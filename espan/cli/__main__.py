"""`python -m espan.cli`, which launchers such as torchrun want."""

import sys

from espan.cli import main

sys.exit(main())
