"""The addresses of the HTTP interface, below `/api/v1/`."""

from __future__ import annotations

from django.urls import path

from marketdata.views import ChainView, InstrumentsView

urlpatterns = [
    path("instruments/", InstrumentsView.as_view(), name="instruments"),
    path("instruments/chain/", ChainView.as_view(), name="chain"),
]
