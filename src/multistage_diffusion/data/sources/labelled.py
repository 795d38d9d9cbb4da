"""The images of a source with the labels that options ask for."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256

from multistage_diffusion.data.label_files import Labels, read_labels
from multistage_diffusion.data.labels import normalised
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.beside import check_matches
from multistage_diffusion.data.sources.left_out import LeftOut
from multistage_diffusion.data.sources.listing import Entry, Label, Listing
from multistage_diffusion.errors import BadInput

__all__ = ["check_all_labelled", "labelled"]

UNLABELLED = "without a label (--skip-unlabelled)"


def labelled(listing: Listing, options: ReadOptions) -> Listing:
    """The images of a listing with the labels of a file, without those that have none.

    The first if there is such a file, the second on request.

    Raises:
        BadInput: if the file has labels for none of the images, or for others.
    """
    if options.labels is not None:
        listing = _with_labels(listing, read_labels(options.labels, options.label_column), options)
    return _without_unlabelled(listing) if options.skip_unlabelled else listing


def _with_labels(listing: Listing, given: Labels, options: ReadOptions) -> Listing:
    names = [entry.name for entry in listing.entries()]
    if names and not any(normalised(name) in given for name in names):
        raise BadInput(
            f"{options.labels} has no label for {names[0]}, nor for {len(names) - 1} others of "
            f"{len(names)} images; files are named as they lie in the data, not like "
            f"{next(iter(given))}."
        )
    _check_names(names, given, options)
    not_read = [name for entry in listing.left_out for name in entry.names]
    check_matches(given, [*names, *not_read], str(options.labels))
    entries = listing.entries

    def labels_given() -> Iterable[Entry]:
        found = entries()
        changed = (replace(entry, label=given.get(normalised(entry.name))) for entry in found)
        return list(changed) if isinstance(found, Sequence) else changed

    return replace(listing, entries=labels_given)


def _check_names(names: Sequence[str], given: Labels, options: ReadOptions) -> None:
    """Raises BadInput if a label stands for several images of one name, as in several shards."""
    for name, count in Counter(map(normalised, names)).items():
        if count > 1 and name in given:
            raise BadInput(
                f"{options.labels} has one label for {name}, and there are {count} images of that "
                "name; rename them, or put labels beside the images."
            )


def check_all_labelled(names: Sequence[str], labels: Sequence[Label], options: ReadOptions) -> None:
    """Raises BadInput if a file of labels was given and has none for some images."""
    missing = [name for name, label in zip(names, labels, strict=True) if label is None]
    if options.labels is not None and missing:
        raise BadInput(
            f"{options.labels} has no label for {missing[0]}, nor for {len(missing) - 1} others "
            f"of {len(names)} images; give them one, or --skip-unlabelled to leave them out."
        )


def _without_unlabelled(listing: Listing) -> Listing:
    """The listing without the entries that have no label, which are named.

    Raises:
        BadInput: if none has a label.
    """
    entries = listing.entries
    dropped = tuple(entry.where for entry in entries() if entry.label is None)
    if not dropped:
        return listing
    if len(dropped) == listing.count():
        raise BadInput(f"{listing.source} has no labels; leave out --skip-unlabelled.")

    def kept() -> Iterable[Entry]:
        found = entries()
        some = (entry for entry in found if entry.label is not None)
        return list(some) if isinstance(found, Sequence) else some

    names = sha256("\n".join(dropped).encode("utf-8", "replace")).hexdigest()
    return replace(
        listing,
        entries=kept,
        count=cache(lambda: listing.count() - len(dropped)),
        identity=lambda: [listing.identity(), names],
        left_out=(*listing.left_out, LeftOut(UNLABELLED, dropped)),
    )
