"""Plans for a budget."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from multistage_diffusion.cost import reused_macs, stage_costs
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model
from multistage_diffusion.sampling import SampleOptions, evaluations_per_stage, generate, plan
from multistage_diffusion.sampling.plan import (
    Budget,
    find_plan,
    load_plan,
    parse_budget,
    save_plan,
)
from multistage_diffusion.training.config import RunConfig


@pytest.fixture
def model(
    denoiser: NetworkDenoiser, run_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> Model:
    monkeypatch.setattr(plan, "FINE_LEVELS", 10)
    monkeypatch.setattr(plan, "REUSE_LEVELS", 8)
    monkeypatch.setattr(plan, "REFERENCE_STEPS", 6)
    return Model(denoiser, run_config.model, 24)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("20nfe", Budget(20, "nfe")),
        ("2GMAC", Budget(2e9, "MAC")),
        ("1.5 MMACs", Budget(1.5e6, "MAC")),
        ("0.5s", Budget(0.5, "s")),
        ("1e3nfe", Budget(1000, "nfe")),
        ("7.5e+08MAC", Budget(7.5e8, "MAC")),
    ],
)
def test_budgets_are_read(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["", "20", "nfe", "-3nfe", "0nfe", "2.3.4s", "5GB", "1e"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="such as 20nfe, 2GMAC or"):
        parse_budget(text)


@pytest.mark.parametrize("solver", ["dpmpp-2m", "heun", "euler"])
def test_a_plan_keeps_its_budget_in_macs_of_the_stages(model: Model, solver: str) -> None:
    macs = [cost.macs for cost in stage_costs(model.config)]
    budget = Budget(5.5 * max(macs), "MAC")
    found = find_plan(model, budget, solver, images=2)
    options = found.apply(SampleOptions(seed=3))
    assert (options.solver, options.seed) == (solver, 3)
    calls = evaluations_per_stage(model.config, options)
    assert tuple(calls) == found.evaluations_per_stage
    spent = sum(n * cost for n, cost in zip(calls, macs, strict=True))
    assert spent <= budget.amount
    assert spent == pytest.approx(found.candidates[0].cost)


def test_the_best_candidate_is_kept_whichever_it_is(model: Model) -> None:
    found = find_plan(model, Budget(6, "nfe"), images=2)
    assert {one.name for one in found.candidates} == {"searched", "karras", "log-snr"}
    errors = [one.error for one in found.candidates]
    assert errors == sorted(errors)
    assert found.levels == found.candidates[0].levels
    assert all(one.cost <= 6 for one in found.candidates)


def test_a_plan_by_time_measures_the_stages(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(plan._seconds(model, stage, reuse=False) > 0 for stage in range(3))
    monkeypatch.setattr(plan, "_seconds", lambda _, stage, __: 0.01 * (stage + 1))
    found = find_plan(model, Budget(0.08, "s"), images=2)
    spent = sum(0.01 * (k + 1) * n for k, n in enumerate(found.evaluations_per_stage))
    assert spent == pytest.approx(found.candidates[0].cost)
    assert spent <= 0.08 + 1e-9


def test_a_plan_with_reuse_pays_for_the_encoder_where_it_is_evaluated(model: Model) -> None:
    whole, reused = [cost.macs for cost in stage_costs(model.config)], reused_macs(model.config)
    found = find_plan(model, Budget(5.5 * max(whole), "MAC"), images=2, reuse=True)
    (one,) = [entry for entry in found.candidates if entry.name == "with reuse"]
    assert set(one.reuse) <= set(one.levels[1:])
    stages = model.denoiser.stages.index(torch.tensor(one.levels)).tolist()
    spent = [
        (reused if level in one.reuse else whole)[stage]
        for level, stage in zip(one.levels, stages, strict=True)
    ]
    assert one.cost == pytest.approx(sum(spent))
    assert found.apply(SampleOptions()).reuse == found.candidates[0].reuse


def test_images_are_drawn_with_the_levels_that_are_reused(model: Model) -> None:
    options = SampleOptions(solver="euler", levels=(80.0, 40.0, 0.1))
    kept = replace(options, reuse=(40.0, 0.1))  # 0.1 is in another stage, whose encoder is called
    drawn, plain = (generate(model, given, range(2)) for given in (kept, options))
    assert not torch.equal(drawn, plain)
    assert torch.equal(drawn, generate(model, replace(options, reuse=(40.0,)), range(2)))


def test_plans_are_files(model: Model, tmp_path: Path) -> None:
    found = find_plan(model, Budget(4, "nfe"), images=2)
    save_plan(tmp_path / "plan.json", found)
    assert load_plan(tmp_path / "plan.json") == found
    content = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps({**content, "solver": "none"}))
    with pytest.raises(BadInput, match="unknown solver"):
        load_plan(tmp_path / "other.json")


def test_what_cannot_be_planned_is_refused(model: Model) -> None:
    with pytest.raises(BadInput, match="pays for no step"):
        find_plan(model, Budget(1, "MAC"), images=2)
    with pytest.raises(BadInput, match=r"pays for far more than 10 steps.*give at most 10nfe"):
        find_plan(model, Budget(1e15, "nfe"), images=2)
    with pytest.raises(BadInput, match="not for unipc"):
        find_plan(model, Budget(5, "nfe"), "unipc", images=2)
    for budget, solver in ((Budget(5, "nfe"), "euler"), (Budget(1e9, "MAC"), "heun")):
        with pytest.raises(BadInput, match="Encoder reuse is for solvers of one evaluation"):
            find_plan(model, budget, solver, images=2, reuse=True)
    with pytest.raises(BadInput, match="--reuse cannot be combined with"):
        SampleOptions(reuse=(1.0,), boundary="blend")


def test_levels_of_options_replace_steps_and_grid(model: Model) -> None:
    options = SampleOptions(solver="euler", levels=(80.0, 1.0, 0.1))
    assert sum(evaluations_per_stage(model.config, options)) == 3
    for levels in ((1.0, 2.0), (1.0, 0.0), (3.0, 3.0)):
        with pytest.raises(BadInput, match="levels"):
            replace(options, levels=levels)
