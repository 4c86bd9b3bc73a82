"""Text from files, made safe to print."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with all that could steer a terminal written as escapes."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
