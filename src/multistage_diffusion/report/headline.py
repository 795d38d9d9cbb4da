"""The first sentence of a page: what was trained, for how long, and what it reached."""

from collections.abc import Mapping, Sequence
from typing import Any

from multistage_diffusion.evaluation.estimate import over_seeds
from multistage_diffusion.evaluation.metrics import METRICS
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.report.numbers import duration, interval, short_path
from multistage_diffusion.study.results import Results
from multistage_diffusion.training.monitoring.records import Record

__all__ = ["metric_words", "of_run", "of_runs", "of_study", "score_of"]

DISTANCES = ("fid", "fd-", "kd-", "mind-")
"""Metrics of a whole set of images, the first ones preferred."""


def metric_words(metric: str) -> str:
    """A metric's name in words: fd-pixels is the Frechet distance (pixels)."""
    kind, _, extractor = metric.partition("-")
    if kind not in METRICS or not extractor:
        return metric.upper() if metric in ("fid", "kid") else metric
    words = METRICS[kind].about
    return f"{words} ({extractor})"


def score_of(results: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The last distance that was measured; None if there is none."""
    for start in DISTANCES:
        found = [result for result in results if result["metric"].startswith(start)]
        if found:
            return found[-1]
    return None


def of_run(
    network: NetworkConfig, data: str, last: Record | None, results: Sequence[Mapping[str, Any]]
) -> str:
    """The sentence about a run."""
    kind, data = _kind(network), short_path(data)
    if last is None:
        return f"{kind} for images of {data}, whose training has not written a record yet."
    trained = f"{kind} saw {last.images:,} images of {data} in {duration(last.seconds)}"
    return f"{trained} and reached {_reached(last, results)}."


def _kind(network: NetworkConfig) -> str:
    decoders, encoders = len(network.decoder_widths), len(network.encoder_widths)
    if decoders == 1:
        return "A unified network"
    if encoders == decoders:
        return f"{decoders} separate networks, one a stage,"
    return f"A network of {decoders} stages"


def _reached(last: Record, results: Sequence[Mapping[str, Any]]) -> str:
    score = score_of(results)
    if score:
        return f"a {metric_words(score['metric'])} of {score['value']:.3g}"
    if last.zero_loss:
        pairs = zip(last.probe_loss, last.zero_loss, strict=True)
        shares = " / ".join(f"{loss / zero:.0%}" for loss, zero in pairs if zero)
        return f"{shares} of an untrained network's loss, by stage"
    losses = " / ".join(f"{loss:.4g}" for loss in last.probe_loss)
    return f"a loss of {losses}, by stage"


def of_runs(
    names: Sequence[str], images: Sequence[int], results: Sequence[Sequence[Mapping[str, Any]]]
) -> str:
    """The sentence about several runs: their scores, where all were measured in the same way."""
    scores = [score for found in results if (score := score_of(found))]
    same = {(s["metric"], s["images"], s["data"].get("fingerprint")) for s in scores}
    start = f"{len(names)} runs compared"
    if len(scores) < len(names) or len(same) != 1:
        seen = zip(names, images, strict=True)
        return f"{start}: {', '.join(f'{name} after {count:,} images' for name, count in seen)}."
    ranked = sorted(zip(scores, names, strict=True), key=lambda pair: float(pair[0]["value"]))
    shown = ", ".join(f"{name} {score['value']:.4g}" for score, name in ranked)
    return f"{start} by {metric_words(scores[0]['metric'])}: {shown}."


def of_study(results: Results) -> str:
    """The sentence about a study: which arm needs least to reach the reference's score."""
    reference = results.study.reference
    metrics = [name for start in DISTANCES for name in results.metrics() if name.startswith(start)]
    metric = next(iter([*metrics, *results.metrics()]), None)
    if metric is None:
        return f"{results.study.name}: nothing has been measured yet."
    reached = {
        arm: list(results.reach(arm, metric).values()) for arm in results.arms if arm != reference
    }
    full = {arm: [v for v in parts if v is not None] for arm, parts in reached.items()}
    full = {arm: parts for arm, parts in full.items() if parts and len(parts) == len(reached[arm])}
    words = metric_words(metric)
    if not full:
        return f"No arm reaches the final {words} of {reference} in every seed."
    arm = min(full, key=lambda name: sum(full[name]) / len(full[name]))
    found = over_seeds(full[arm])
    spread = f"95 % interval {interval(found.interval, '.2f')}, " if found.interval else ""
    seeds = f"{len(full[arm])} seed{'s' if len(full[arm]) > 1 else ''}"
    return (
        f"{arm} reaches the final {words} of {reference} with {found.value:.2f} of its training "
        f"multiply-accumulates ({spread}{seeds})."
    )
