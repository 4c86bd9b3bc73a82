"""What tensorizer's own tests ask of its package of this name: whether it can encrypt."""

from __future__ import annotations

from inrush.tensorizer._crypto import CryptographyError

__all__ = ("CryptographyError", "available")

available = True  # Inrush brings its ciphers
