"""``python -m jumar.drills``: bring faults about, and print what survived them."""

import sys

from jumar.drills.command import main

sys.exit(main())
