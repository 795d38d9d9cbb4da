"""From an arm of a study to the commands that make its runs."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

from multistage_diffusion.cli.commands.train import Train
from multistage_diffusion.cli.main import parse
from multistage_diffusion.cli.reading import read
from multistage_diffusion.data import Images, ReadOptions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_json
from multistage_diffusion.run import Run, checkpoint_model
from multistage_diffusion.sampling import SampleOptions
from multistage_diffusion.study.config import Arm, Option, Options, StudyConfig, as_arguments
from multistage_diffusion.study.results import mean_macs, run_folder
from multistage_diffusion.training.batches.levels import Levels
from multistage_diffusion.training.config import RunConfig

__all__ = ["Command", "Job", "Planner", "arms_of", "only", "waves", "with_data"]

SAME_DENSITY = 0.01  # largest difference of two distributions of levels that count as the same
READING = {entry.name for entry in fields(ReadOptions)}
SAMPLING = {entry.name for entry in fields(SampleOptions)}
GRID_IMAGES = 64
ARM_PREFIX = "arm:"
"""In an option of ``cluster``: the run of another arm with the first seed."""

Command = list[str]


@dataclass(frozen=True)
class Job:
    """A run of an arm: commands one after another."""

    arm: str
    seed: int
    commands: list[Command]

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.arm}-{self.seed}"


def waves(study: StudyConfig) -> Iterator[list[str]]:
    """The arms in groups; each needs only runs of earlier groups.

    Raises:
        BadInput: if arms need each other in a circle.
    """
    left = dict(study.arms)
    while left:
        ready = [name for name, arm in left.items() if not _needed(arm) & left.keys()]
        if not ready:
            raise BadInput(f"The arms {', '.join(left)} of the study need each other's runs.")
        yield ready
        for name in ready:
            del left[name]


def _needed(arm: Arm) -> set[str]:
    values = [value for value in arm.cluster.values() if isinstance(value, str)]
    named = {v.removeprefix(ARM_PREFIX) for v in values if v.startswith(ARM_PREFIX)}
    others = (arm.init and arm.init.arm, arm.replaced and arm.replaced.arm, arm.per_stage)
    return named | {name for name in others if name}


class Planner:
    """The commands of a study.

    Args:
        study: the study.
        out: its folder.
    """

    def __init__(self, study: StudyConfig, out: Path) -> None:
        self.study = study
        self.out = out
        self.images: dict[ReadOptions, Images] = {}
        self.reference = self._configure(study.reference, study.images)
        self.budget = study.images * mean_macs(self.reference)
        """Training multiply-accumulates of a run."""

    def clustering(self, name: str) -> Command | None:
        """The command that finds the stages of an arm; None if it needs none or has them."""
        arm = self.study.arms[name]
        if not arm.cluster or self._stages_file(name).exists():
            return None
        options = {key: self._resolved(value) for key, value in arm.cluster.items()}
        reading = self._reading(arm)
        return [
            "cluster",
            *("--data", self.study.data),
            *("--out", str(self._stages_file(name))),
            *as_arguments(reading | options),
        ]

    def _resolved(self, value: Option) -> Option:
        if isinstance(value, str) and value.startswith(ARM_PREFIX):
            arm = value.removeprefix(ARM_PREFIX)
            return str(run_folder(self.out, arm, self.study.seeds[0]))
        return value

    def jobs(self, name: str) -> list[Job]:
        """The runs of an arm, one for each seed.

        Raises:
            BadInput: if its density of noise levels is not the reference's, or its runs would cost
                more.
        """
        arm = self.study.arms[name]
        if arm.replaced:
            return [Job(name, seed, self._replaced(name, seed)) for seed in self.study.seeds]
        if arm.per_stage:
            return [Job(name, seed, self._put_together(name, seed)) for seed in self.study.seeds]
        config = self._configure(name, 1)
        if arm.density == "same":
            self._check_density(name, config)
        images = self.length(name, config)
        return [Job(name, seed, self._train(name, seed, images)) for seed in self.study.seeds]

    def length(self, name: str, config: RunConfig) -> int:
        """The length of an arm's runs in images.

        Raises:
            BadInput: if the study's own number costs more than the reference.
        """
        arm = self.study.arms[name]
        budget = self.budget
        if arm.init:
            budget -= arm.init.images * mean_macs(self._configure(arm.init.arm, 1))
        affordable = int(budget // mean_macs(config))
        if affordable < 1:
            raise BadInput(f"The arm {name} has nothing left to train with.")
        if arm.images is not None and arm.images > 1.01 * affordable:
            raise BadInput(
                f"The arm {name} would see {arm.images:,} images; the cost of the reference pays "
                f"for {affordable:,}."
            )
        return arm.images or affordable

    def _train(self, name: str, seed: int, images: int) -> list[Command]:
        arm = self.study.arms[name]
        run = run_folder(self.out, name, seed)
        commands: list[Command] = []
        init: Command = []
        if arm.init:
            file = self.out / "init" / f"{name}-{seed}.safetensors"
            init = ["--init", str(file)]
            if not file.exists():
                commands.append(self._conversion(name, seed, file))
        train = [*self._train_words(name, run, images), "--seed", str(seed), *init]
        return [*commands, train, *self._measurements(arm, run), self._grid(name, seed)]

    def _grid(self, name: str, seed: int) -> Command:
        """The command that draws samples of a finished model, the same seeds for all."""
        model = Run(run_folder(self.out, name, seed)).model
        out = self.out / "samples" / f"{name}-{seed}"
        options = {k: v for k, v in self.study.evaluate.items() if k in SAMPLING}
        words = ["--images", str(GRID_IMAGES), "--out", str(out), *as_arguments(options)]
        return ["sample", str(model), *words]

    def _conversion(self, name: str, seed: int, file: Path) -> Command:
        """The command that gives the checkpoint of a unified arm several decoders."""
        start = self.study.arms[name].init
        assert start
        config = self._configure(name, 1)
        stages = self.out / "stages" / f"{name}-init.json"
        write_json(stages, {"boundaries": list(config.model.boundaries)})
        source = Run(run_folder(self.out, start.arm, seed))
        near = min(source.checkpoints(), key=lambda path: abs(int(path.name) - start.images))
        widths = map(str, config.model.network.decoder_widths)
        model = str(checkpoint_model(near))
        return [
            *("convert", model, "--out", str(file), "--stages", str(stages)),
            *("--decoder-widths", *widths),
        ]

    def _put_together(self, name: str, seed: int) -> list[Command]:
        """The commands that make a model of each stage's best checkpoint of another arm."""
        arm = self.study.arms[name]
        assert arm.per_stage
        file = Run(run_folder(self.out, name, seed)).model
        source = str(run_folder(self.out, arm.per_stage, seed))
        data = self.study.held_out_data or self.study.data
        words = ["--per-stage", "--data", data, *as_arguments(self._reading(arm))]
        make = [] if file.exists() else [["ema", source, "--out", str(file), *words]]
        return [*make, *self._measurements(arm, file), self._grid(name, seed)]

    def _replaced(self, name: str, seed: int) -> list[Command]:
        """The commands that put a stage of each checkpoint into the finished model."""
        replaced = self.study.arms[name].replaced
        assert replaced
        source, run = (Run(run_folder(self.out, of, seed)) for of in (replaced.arm, name))
        stages = len(self._configure(replaced.arm, 1).model.boundaries) + 1
        commands = []
        for checkpoint in source.evenly_spaced_checkpoints(self.study.checkpoints):
            file = checkpoint_model(run.checkpoint(int(checkpoint.name)))
            models = [source.model] * stages
            models[replaced.stage - 1] = checkpoint_model(checkpoint)
            if not file.exists():
                words = ["--stages-from", *map(str, models), "--out", str(file)]
                commands.append(["ema", str(source.path), *words])
        return [*commands, *self._measurements(self.study.arms[replaced.arm], run.path)]

    def gradients(self) -> list[Job]:
        """The commands that measure cosines of gradients."""
        seed = self.study.seeds[0]
        jobs = []
        for name in self.study.gradients:
            file = self.out / "gradients" / f"{name}.json"
            run = run_folder(self.out, name, seed)
            method = ["--method", "gradient", "--checkpoint", str(run), "--out", str(file)]
            reading = as_arguments(self._reading(self.study.arms[name]))
            command = ["cluster", "--data", self.study.data, *method, *reading]
            jobs += [] if file.exists() else [Job(f"{name}-gradients", seed, [command])]
        return jobs

    def _measurements(self, arm: Arm, target: Path) -> list[Command]:
        """The commands that measure a run or a model file."""
        study = self.study
        held_out = study.held_out_data or study.data
        points = [] if arm.per_stage else ["--checkpoints", str(study.checkpoints)]
        reading = self._reading(arm)

        def evaluate(data: str, words: Command) -> Command:
            start = ["evaluate", str(target), "--data", data, "--missing-only"]
            return [*start, *as_arguments(reading), *words]

        denoising = ["--metric", "denoising", "--images", str(study.denoising_images)]
        commands = [evaluate(held_out, [*points, *denoising])]
        if study.evaluate:
            commands.append(evaluate(study.data, [*points, *as_arguments(study.evaluate)]))
        if study.final:
            words = [*as_arguments(study.evaluate | study.final), "--tag", "final"]
            commands.append(evaluate(study.data, words))
        for sampler in study.samplers:
            tag = " ".join(str(value) for value in sampler.values())
            words = [*as_arguments(study.evaluate | sampler), "--tag", tag]
            commands.append(evaluate(study.data, words))
        return commands

    def _reading(self, arm: Arm) -> Options:
        """The options of training that say how images are read."""
        options = self.study.train | arm.train
        return {key: value for key, value in options.items() if key in READING}

    def _configure(self, name: str, images: int) -> RunConfig:
        """The configuration of an arm's run."""
        command = parse(self._train_words(name, run_folder(self.out, name, 0), images))
        assert isinstance(command, Train)
        if command.reading not in self.images:
            self.images[command.reading] = read(command.data, command.reading)
        return command.configure(command.prepare(self.images[command.reading]))

    def _train_words(self, name: str, run: Path, images: int) -> Command:
        study = self.study
        arm = study.arms[name]
        every = -(-images // study.checkpoints)
        defaults: Options = {"images": images, "checkpoint_images": every, "keep_every": 1}
        stages = ["--stages", str(self._stages_file(name))] if arm.cluster else []
        where = ["--data", study.data, "--out", str(run)]
        options = as_arguments(defaults | study.train | arm.train)
        return ["train", study.preset, *where, *stages, *options]

    def _stages_file(self, name: str) -> Path:
        return self.out / "stages" / f"{name}.json"

    def _check_density(self, name: str, config: RunConfig) -> None:
        ours, theirs = Levels.of(config), Levels.of(self.reference)
        difference = ours.distance(theirs)
        if difference > SAME_DENSITY:
            raise BadInput(
                f"The arm {name} draws noise levels with another density than "
                f"{self.study.reference} (their distributions differ by {difference:.1%}): give "
                "both the same shares, --share-boundaries to a unified network, or the arm "
                'density = "own".'
            )


def only(jobs: list[Job], wanted: tuple[str, ...]) -> list[Job]:
    """The jobs with these names or of these arms; all if there are none."""
    return [job for job in jobs if not wanted or job.name in wanted or job.arm in wanted]


def arms_of(study: StudyConfig, wanted: tuple[str, ...]) -> set[str]:
    """The arms that have jobs with these names; all if there are none."""
    runs = {f"{arm}-{seed}": arm for arm in study.arms for seed in study.seeds}
    return {runs.get(name, name) for name in wanted} if wanted else set(study.arms)


def with_data(study: StudyConfig, data: str | None, held_out: str | None) -> StudyConfig:
    """A study on other images; those held out belong to the data."""
    if data is None:
        return replace(study, held_out_data=held_out or study.held_out_data)
    return replace(study, data=data, held_out_data=held_out)
