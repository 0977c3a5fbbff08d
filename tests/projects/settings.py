"""What the settings of all these projects share."""

from __future__ import annotations

import os
from pathlib import Path

from workbench.connection import database

SECRET_KEY = "only for tests"
WORKBENCH_HOME = Path(os.environ["WORKBENCH_HOME"])
DATABASES = {"default": database(os.environ, home=WORKBENCH_HOME)}
WORKBENCH_YES = True
WORKBENCH_PROGRESS = False
USE_TZ = True
