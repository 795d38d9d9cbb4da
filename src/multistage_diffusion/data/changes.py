"""What reading changed in the images of a set, counted."""

from dataclasses import dataclass, field

from multistage_diffusion.data.examine import ExaminedImage

__all__ = ["Changes", "Remark"]


@dataclass
class Remark:
    """A sentence that holds for some images."""

    first: str
    """The name of the first of them."""
    count: int = 0


@dataclass
class Changes:
    """How many images were changed in which way, and further remarks."""

    images: int = 0
    """All images."""
    converted: dict[str, int] = field(default_factory=dict)
    """How many were converted, by how."""
    remarks: dict[str, Remark] = field(default_factory=dict)
    """What is wrong with files that could be decoded."""
    unread_pages: int = 0
    """Pages and frames that were not read."""
    in_files: int = 0
    """Number of files with unread pages or frames."""
    first_in: str = ""
    """The first of these files."""
    resized: int = 0
    """Images that were resized."""
    deep: int = 0
    """Images of 16 bits."""
    largest: int = 0
    """The largest value of all of them."""
    clipped: int = 0
    """How many of their values were too large for the range that became 0..255."""

    def add(self, image: ExaminedImage, all_pages: bool) -> None:
        """Counts an image.

        Args:
            image: the image.
            all_pages: whether all pages of its file are read.
        """
        self.images += 1
        if image.converted:
            self.converted[image.converted] = self.converted.get(image.converted, 0) + 1
        for text in image.remarks:
            self.remarks.setdefault(text, Remark(image.where)).count += 1
        if image.pages > 1 and not all_pages:
            self.first_in = self.first_in or image.where
            self.unread_pages += image.pages - 1
            self.in_files += 1
        if image.largest is not None:
            self.deep += 1
            self.largest = max(self.largest, image.largest)
            self.clipped += image.clipped

    def conversions(self, entries: int) -> list[str]:
        """Remarks on how many of ``entries`` images were converted in which way."""
        return [f"{count} of {entries} images {done}" for done, count in self.converted.items()]

    def further(self) -> list[str]:
        """All other remarks."""
        return [*self._about_depth(), *self._about_pages(), *map(_sentence, self.remarks.items())]

    def _about_depth(self) -> list[str]:
        if not self.deep:
            return []
        words = [
            f"the largest value of the {_images(self.deep)} of 16 bits is {self.largest} of 65535 "
            "(--max-value sets the one that becomes 255)"
        ]
        if self.clipped:
            words.append(f"{self.clipped:,} values above --max-value became 255")
        if self.deep < self.images:
            words.append(
                f"depths are mixed: {self.deep} of {self.images} images have 16 bits a channel, "
                "the others 8"
            )
        return words

    def _about_pages(self) -> list[str]:
        if not self.unread_pages:
            return []
        return [
            f"{self.unread_pages:,} further pages or frames of {self.in_files:,} files, such as "
            f"{self.first_in}, were not read (--pages all reads them)"
        ]


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _sentence(item: tuple[str, Remark]) -> str:
    text, remark = item
    more = f" and {remark.count - 1} more" if remark.count > 1 else ""
    return f"{remark.first}{more}: {text}"
