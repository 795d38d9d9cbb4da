"""Settings of how a step is executed; they do not change what it computes."""

from dataclasses import dataclass

from multistage_diffusion.config import Settings, setting

__all__ = ["ExecutionConfig"]


@dataclass(frozen=True, kw_only=True)
class ExecutionConfig(Settings):
    """How a step is executed."""

    accumulate: int = setting(1, at_least=1, at_most=1_000_000)
    """Micro-batches into which each process splits its part of a batch, to save memory; the result
    is the same, except for the masks of dropout on a GPU."""
    compile: bool = setting(False, may_change=True)
    """Compile encoder and decoders separately: minutes at the start, faster steps. A resumed run is
    then equal up to rounding."""
    shard: bool = setting(False, may_change=True)
    """Split weights, moments and averages over the processes (FSDP), where a GPU cannot hold them
    whole."""
