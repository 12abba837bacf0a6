"""`python -m countermark_verify`."""

import sys

from countermark_verify.cli import main

sys.exit(main())
