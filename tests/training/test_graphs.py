"""Recorded functions where nothing can be recorded; `test_gpu` has the recordings."""

import torch

from minivdm.training.graphs import Recorded


def test_gradients_are_made_anew_at_each_call():
    weight = torch.nn.Parameter(torch.ones(3))

    def gradients(x):
        loss = (weight * x).sum()
        loss.backward()
        return loss.detach()

    learn = Recorded(gradients, [weight])
    for k in (1.0, 2.0):
        assert learn(x=torch.full((3,), k)) == 3 * k and torch.equal(weight.grad, torch.full((3,), k))
