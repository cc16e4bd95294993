"""Client protocols: each a codec between JSON text and the same commands and answers."""

from marketdata.dialects.base import Dialect
from marketdata.dialects.native import NATIVE
from marketdata.dialects.openalgo import OPENALGO

__all__ = ["NATIVE", "OPENALGO", "Dialect"]
