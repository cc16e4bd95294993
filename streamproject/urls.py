"""Which page is where; a stream at `/` is a WebSocket, see `marketdata.routing`."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpResponse
from django.urls import include, path

from brokers import urls as brokers
from marketdata.views import healthz, readyz

admin.site.site_header = "Market data"
admin.site.site_title = "Market data"
admin.site.index_title = "Brokers, accounts and API keys"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("favicon.ico", lambda request: HttpResponse(status=204)),  # which every browser asks for
    path("healthz", healthz),
    path("readyz", readyz),
    path("broker/", include(brokers.pages)),
    path("api/v1/", include("marketdata.urls")),
    path("api/v1/", include(brokers.rest)),
]
