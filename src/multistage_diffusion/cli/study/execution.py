"""Runs of a study side by side, each command in a process of its own."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multistage_diffusion.cli.study.steps import Command, Job
from multistage_diffusion.cli.terminal import print_line
from multistage_diffusion.errors import BadInput

__all__ = ["Execution"]

SECONDS_BETWEEN_LOOKS = 0.2
# A Ctrl-C reaches each command once, through this process.
if sys.platform == "win32":
    OWN_GROUP: dict[str, Any] = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    STOP = signal.CTRL_BREAK_EVENT
else:
    OWN_GROUP: dict[str, Any] = {"start_new_session": True}
    STOP = signal.SIGINT


@dataclass
class Execution:
    """Runs jobs.

    Args:
        logs: folder of a log for each job.
        workers: jobs at the same time, which share the processor cores.
        should_stop: if it turns true, what runs is asked to stop and nothing more begins.
    """

    logs: Path
    workers: int
    should_stop: Callable[[], bool]
    failed: list[str] = field(default_factory=list)
    """Sentences on jobs that failed."""
    printing: threading.Lock = field(default_factory=threading.Lock)

    def run(self, jobs: Sequence[Job]) -> bool:
        """Runs all jobs; returns whether all of them were finished.

        Raises:
            BadInput: if a job failed; the others are finished before.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(self.workers) as pool:
            finished = list(pool.map(self._job, jobs))
        if self.failed:
            raise BadInput("; ".join(self.failed))
        return all(finished)

    def _job(self, job: Job) -> bool:
        for command in job.commands:
            if self.should_stop():
                return False
            self._say(f"{job.name}: {command[0]}{_detail(command)}")
            code = self._command(command, self.log(job))
            if self.should_stop():
                return False
            if code:
                self.failed.append(self._failure(job, command))
                return False
        self._say(f"{job.name}: finished")
        return True

    def log(self, job: Job) -> Path:
        """The log of a job."""
        return self.logs / f"{job.name}.log"

    def _command(self, command: Command, log: Path) -> int:
        """Runs a command to its end, or interrupts it; returns its exit code."""
        words = [sys.executable, "-m", "multistage_diffusion", *command]
        threads = str(max(1, (os.cpu_count() or 1) // self.workers))
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        with log.open("a") as output:
            process = subprocess.Popen(  # noqa: S603  (this program)
                words,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                **OWN_GROUP,
            )
            return self._wait(process)

    def _wait(self, process: "subprocess.Popen[bytes]") -> int:
        asked = False
        while True:
            try:
                return process.wait(SECONDS_BETWEEN_LOOKS)
            except subprocess.TimeoutExpired:
                if self.should_stop() and not asked:
                    process.send_signal(STOP)
                    asked = True

    def _failure(self, job: Job, command: Command) -> str:
        lines = self.log(job).read_text(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "it printed nothing"
        return f"{job.name} stopped in {command[0]} (see {self.log(job)}): {last}"

    def _say(self, text: str) -> None:
        with self.printing:
            print_line(text)


def _detail(command: Command) -> str:
    """Which measurement a command is."""
    if command[0] != "evaluate":
        return ""
    tag = command[command.index("--tag") + 1] if "--tag" in command else ""
    return f" {tag or ('denoising' if 'denoising' in command else 'checkpoints')}"
