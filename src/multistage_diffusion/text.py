"""Text that may be shown: what comes from files and names cannot steer a terminal."""

import unicodedata

__all__ = ["one_line", "printable"]

HIDDEN = {"Cc", "Zl", "Zp"}
"""Unicode's categories of control characters, such as those of colours, and of line separators."""
TURNING = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of those after them."""


def printable(text: str) -> str:
    """Text without control characters and line breaks, which are written as in a Python string.

    Bytes of a file name that are not UTF-8, which Python keeps as lone surrogates, become U+FFFD.
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cs":
        return "\N{REPLACEMENT CHARACTER}"
    hidden = category in HIDDEN or character in TURNING
    return ascii(character)[1:-1] if hidden else character


def one_line(text: str) -> str:
    """Printable text, in which white space and line breaks of a message become single spaces."""
    return " ".join(map(printable, text.split()))
