from __future__ import annotations

import sys

from falaj.doors.predict.main import main

sys.exit(main())
