from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multistage_diffusion.clustering.partition import (
    best_partition,
    middle_values,
    similarity_values,
)
from multistage_diffusion.schedule import VP


def symmetric(levels: int, seed: int) -> np.ndarray:
    matrix = np.random.default_rng(seed).random((levels, levels))
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1)
    return matrix


@given(
    levels=st.integers(1, 9),
    stages=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    shortest=st.integers(1, 3),
)
def test_equals_brute_force(levels: int, stages: int, seed: int, shortest: int) -> None:
    value = np.random.default_rng(seed).standard_normal((levels + 1, levels + 1))
    longest = shortest + 3
    sums = []
    for cuts in combinations(range(1, levels), stages - 1):
        edges = [0, *cuts, levels]
        if all(shortest <= b - a <= longest for a, b in pairwise(edges)):
            sums.append((sum(value[a, b] for a, b in pairwise(edges)), cuts))
    if not sums:
        with pytest.raises(ValueError, match="cannot be cut"):
            best_partition(value, stages, shortest, longest)
        return
    found, total = best_partition(value, stages, shortest, longest)
    assert total == pytest.approx(max(sums)[0])
    assert found == list(max(sums)[1])


@given(levels=st.integers(1, 8), seed=st.integers(0, 10**6))
def test_similarity_value_is_the_mean_of_the_block_times_its_length(levels: int, seed: int) -> None:
    similarity = symmetric(levels, seed)
    value = similarity_values(similarity)
    for i in range(levels):
        for j in range(i + 1, levels + 1):
            assert value[i, j] == pytest.approx(similarity[i:j, i:j].mean() * (j - i))


@pytest.mark.parametrize("cuts", [[4], [2, 7], [1, 5, 9], [3, 4, 5, 6]])
def test_a_block_matrix_gives_its_blocks_back(cuts: list[int]) -> None:
    edges = [0, *cuts, 12]
    similarity = np.full((12, 12), 0.3)
    for a, b in pairwise(edges):
        similarity[a:b, a:b] = 1
    found, total = best_partition(similarity_values(similarity), len(cuts) + 1)
    assert found == cuts
    assert total == pytest.approx(12)


def test_more_stages_are_never_less_similar() -> None:
    value = similarity_values(symmetric(14, 0))
    totals = [best_partition(value, stages)[1] for stages in range(1, 15)]
    assert totals == sorted(totals)
    assert totals[-1] == pytest.approx(14)


@pytest.mark.parametrize(("name", "expected"), [("timestep", (0.335, 0.67)), ("snr", (0.35, 0.71))])
def test_distances_to_the_middle_of_go_et_al(name: str, expected: tuple[float, float]) -> None:
    """On 200 steps of the VP schedule, as the paper compares with."""
    t = np.arange(1, 201) / 200
    clock = (
        t
        if name == "timestep"
        else -2 * np.log(np.array([float(VP().from_clock(float(v))) for v in t]))
    )
    value = middle_values(np.abs(clock[:, None] - clock[None, :]))
    cuts, _ = best_partition(value, 3, shortest=34, longest=100)
    assert tuple(t[cuts]) == pytest.approx(expected, abs=1e-9)
