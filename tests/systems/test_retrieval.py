"""Retrieval: neighbours by definition, no clip finds itself, and a memory that draws what it holds."""

import pytest
import torch

from minivdm.core import CosineSchedule, sample
from minivdm.exact import GaussianMixture
from minivdm.guards import BadArgument
from minivdm.systems.retrieval import MemoryDenoiser, nearest, neighbour_tokens

SCHEDULE = CosineSchedule(-12, 12)


def rows(n: int, d: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_neighbours_are_those_of_the_definition():
    queries, database = rows(5, seed=1), rows(20)
    found = nearest(queries, database, 3)
    for i in range(5):
        cosine = torch.cosine_similarity(queries[i], database, dim=1)
        order = cosine.argsort(descending=True)[:3]
        assert found.rows[i].tolist() == order.tolist()
        assert torch.allclose(found.cosine[i], cosine[order], atol=1e-6)
    assert torch.allclose(neighbour_tokens(found, 7 * database).norm(dim=-1), torch.ones(5, 3))


def test_a_clip_does_not_find_itself():
    database = rows(20)
    assert nearest(database, database, 1).rows[:, 0].tolist() == list(range(20))
    assert not (nearest(database, database, 4, leave_out=0.9999).rows == torch.arange(20)[:, None]).any()


def test_a_memory_draws_what_it_holds_and_another_one_after_a_swap():
    first, second = rows(4).view(4, 1, 6, 1, 1), 3 + rows(3, seed=2).view(3, 1, 6, 1, 1)
    noise = rows(30, seed=3).view(30, 1, 6, 1, 1)
    memory = MemoryDenoiser(first, SCHEDULE)
    for model, database in ((memory, first), (memory.swapped(second), second)):
        made = sample(model, noise, steps=64)
        assert torch.cdist(made.flatten(1).double(), database.flatten(1).double()).min(1).values.max() < 1e-5


def test_its_denoiser_is_that_of_a_mixture_of_narrow_gaussians():
    clips, z = rows(5, 2), rows(7, 2, seed=1)
    mixture = GaussianMixture(torch.ones(5) / 5, clips.double(), 1e-12)
    expected = mixture.denoiser(SCHEDULE)(z.double(), 0.6)
    assert torch.allclose(MemoryDenoiser(clips, SCHEDULE)(z, 0.6).double(), expected, atol=1e-5)


def test_errors():
    with pytest.raises(BadArgument, match="k: expected"):
        nearest(rows(2), rows(3), 4)
    with pytest.raises(BadArgument, match="rows of 6 numbers"):
        nearest(rows(2), rows(3, 5), 1)
    with pytest.raises(BadArgument, match="leave_out"):
        nearest(rows(2), rows(3), 3, leave_out=-1.0)
    with pytest.raises(BadArgument, match="z: expected"):
        MemoryDenoiser(rows(3), SCHEDULE)(rows(2, 5), 0.5)
