"""
The project's settings, kept away from the developer's own `.env`, environment and database.

pytest-django loads settings before any conftest, so the separation is made here. Child processes inherit it: they get
the real settings module, with the same `.env` and folder as the tests.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from pathlib import Path

for _name in re.findall(r"^#?([A-Z_]+)=", (Path(__file__).parent.parent / ".env.example").read_text(), re.MULTILINE):
    os.environ.pop(_name, None)

_folder = tempfile.mkdtemp(prefix="stream-tests-")
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
os.environ["STREAM_DATA_DIR"] = _folder
os.environ["STREAM_ENV_FILE"] = f"{_folder}/.env"
os.environ["DJANGO_SETTINGS_MODULE"] = "streamproject.settings"
os.environ["SYNC_INSTRUMENTS"] = "false"

from streamproject.settings import *  # noqa: E402, F403

# Cheap on purpose: what tests log in with is no secret.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
