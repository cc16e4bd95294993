"""The ASGI application: pages for HTTP, streams for WebSocket. daphne and uvicorn start here too."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "streamproject.settings")
pages = get_asgi_application()

# Only now: these import models, which need the apps to be ready.
from channels.routing import ProtocolTypeRouter  # noqa: E402

from marketdata.routing import application as streams  # noqa: E402

application = ProtocolTypeRouter({"http": pages, "websocket": streams})
