"""The admin of the brokers' side; each module registers its pages by being imported."""

from brokers.admin import accounts, attempts, brokers, calendar, instruments  # noqa: F401
