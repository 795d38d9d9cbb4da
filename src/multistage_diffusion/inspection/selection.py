"""Which of many images are shown."""

__all__ = ["PICTURED", "is_selected"]

PICTURED = 64


def is_selected(number: int, count: int, wanted: int = PICTURED) -> bool:
    """Whether an image is one of ``wanted`` that are spread evenly over ``count``.

    Args:
        number: of the image, from 0.
        count: how many images there are.
        wanted: how many are to be selected; all if there are fewer.
    """
    wanted = max(1, min(wanted, count))
    return number * wanted // count != (number - 1) * wanted // count
