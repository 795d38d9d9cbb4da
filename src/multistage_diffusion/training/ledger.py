"""What a run has cost so far."""

from dataclasses import dataclass, fields

__all__ = ["Ledger"]


@dataclass
class Ledger:
    """Sums over all sessions of a run."""

    seconds: float = 0.0
    """Wall-clock time."""
    processor_seconds: float = 0.0
    """Time of all threads of all ranks on processors."""
    joules: float = 0.0
    """Joules of the machine's processor packages and GPUs, as far as it reports them; else 0."""
    forward_macs: float = 0.0
    """Multiply-accumulates of the forward passes, for the stages of the levels drawn."""
    backward_macs: float = 0.0
    """The same of the backward passes, without what frozen parts save."""

    @property
    def macs(self) -> float:
        """Multiply-accumulates in all."""
        return self.forward_macs + self.backward_macs

    def as_progress(self) -> dict[str, float]:
        """The numbers by name, as a checkpoint keeps them."""
        return {**vars(self), "macs": self.macs}

    @staticmethod
    def from_progress(progress: dict[str, float]) -> "Ledger":
        """The ledger of a checkpoint.

        Checkpoints written before there were two kinds have one number for all
        multiply-accumulates, which is taken as one third forward and two thirds backward.
        """
        known = {field.name: float(progress.get(field.name, 0.0)) for field in fields(Ledger)}
        if "forward_macs" not in progress:
            known["forward_macs"] = progress["macs"] / 3
            known["backward_macs"] = progress["macs"] - known["forward_macs"]
        return Ledger(**known)
