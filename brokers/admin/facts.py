"""What an admin page says of a broker's adapter."""

from __future__ import annotations

from brokers import registry
from brokers.contract import Spec
from brokers.models import Broker


def spec_of(broker: Broker) -> Spec | None:
    """The facts of a broker; None where its adapter is not installed any more."""
    return registry.load(broker.slug).spec if broker.slug in registry.slugs() else None
