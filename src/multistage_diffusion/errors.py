"""What a user can mend."""

__all__ = ["BadInput"]


class BadInput(ValueError):
    """Input that cannot be used. The message is one sentence: what is wrong, where, and what to do."""
