"""``python -m jumar``: the same as the ``jumar`` command."""

import sys

from jumar.cli import main

sys.exit(main())
