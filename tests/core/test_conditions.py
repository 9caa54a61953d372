"""Conditions by name: through network, denoiser, loss and guidance, and two of them in one batch."""

import pytest
import torch
from torch import nn

from minivdm.core.denoiser import Conditional, Denoiser, both
from minivdm.core.guidance import classifier_free
from minivdm.core.schedules import CosineSchedule
from minivdm.networks import UNet3D

SCHEDULE = CosineSchedule()


class Named(nn.Module):
    """Predicts x from the means of two conditions, and remembers what it was called with."""

    zero_is_absent = ("text",)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.calls = []

    def forward(self, z, log_snr, text=None, low=None):
        self.calls.append((len(z), {"text": text, "low": low}))
        value = self.weight * 0.1 * z
        if text is not None:
            value = value + text.mean(1)[:, None]
        if low is not None:
            value = value + 10 * low.mean(1)[:, None]
        return value


@pytest.fixture
def network():
    return Named().double()


@pytest.fixture
def denoise(network):
    return Denoiser(network, SCHEDULE, "x")


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_a_condition_reaches_the_network_by_its_name(denoise, network, generator):
    z = normal(generator, 3, 2)
    denoise.given(text=torch.ones(1, 4), low=torch.zeros(3, 2))(z, 0.5)
    (_, conditions), *_ = network.calls
    assert conditions["text"].shape == (3, 4) and conditions["text"].dtype == z.dtype
    torch.testing.assert_close(denoise.given(text=torch.ones(1, 4))(z, 0.5), 0.1 * z + 1)


def test_what_is_none_is_absent(denoise, network, generator):
    denoise.given(None, text=None)(normal(generator, 3, 2), 0.5)
    assert network.calls[0][1] == {"text": None, "low": None}


def test_whole_numbers_stay_whole(generator):
    class Tokens(nn.Module):
        def forward(self, z, log_snr, text=None):
            assert text.dtype == torch.long
            return z * 0

    Denoiser(Tokens(), SCHEDULE).given(text=torch.tensor([[3, 1]]))(normal(generator, 2, 2), 0.5)


@pytest.mark.parametrize("call", ["given", "forward", "loss"])
def test_an_unknown_condition_is_named(call, denoise, generator):
    z = normal(generator, 3, 2)
    calls = {
        "given": lambda: denoise.given(txt=torch.ones(1, 4)),
        "forward": lambda: denoise(z, 0.5, txt=torch.ones(1, 4)),
        "loss": lambda: denoise.loss(z, txt=torch.ones(3, 4)),
    }
    with pytest.raises(TypeError, match="takes text, low; got txt"):
        calls[call]()


def test_labels_for_a_network_without_them_are_named(denoise):
    with pytest.raises(TypeError, match="takes text, low; got labels"):
        denoise.given(torch.ones(1, 10))


@pytest.mark.parametrize("value", ["a seven", 3, torch.tensor(1.0)])
def test_a_condition_is_a_tensor_with_the_batch_first(value, denoise):
    with pytest.raises(TypeError, match="text: expected a tensor with the batch first"):
        denoise.given(text=value)


def test_a_condition_for_another_number_of_samples_is_named(denoise, generator):
    with pytest.raises(ValueError, match="expected text for 1 or 3 samples, got 2"):
        denoise.given(text=torch.ones(2, 4))(normal(generator, 3, 2), 0.5)


def test_a_wrapped_network_keeps_its_names(network, generator):
    class Wrapper(nn.Module):  # as DistributedDataParallel does it
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, *inputs, **named):
            return self.module(*inputs, **named)

    wrapped = Denoiser(Wrapper(network), SCHEDULE, "x")
    wrapped.given(text=torch.ones(1, 4))(normal(generator, 3, 2), 0.5)
    with pytest.raises(TypeError, match="got txt"):
        wrapped.given(txt=torch.ones(1, 4))


# ---- dropping ------------------------------------------------------------------------------------------------------


def test_each_condition_is_dropped_by_itself(denoise, network):
    n = 4000
    x, ones = torch.zeros(n, 2).double(), torch.ones(n, 4)
    denoise.loss(x, text=ones, low=ones, drop={"text": 0.3, "low": 0.6}, generator=torch.Generator().manual_seed(0))
    kept = {name: value.flatten(1) != 0 for name, value in network.calls[-1][1].items()}
    assert all((value.all(1) == value.any(1)).all() for value in kept.values())  # whole samples
    shares = {name: 1 - value.all(1).double().mean().item() for name, value in kept.items()}
    # Four standard errors of a share among 4,000.
    assert shares == {"text": pytest.approx(0.3, abs=0.03), "low": pytest.approx(0.6, abs=0.031)}
    together = (~kept["text"].all(1) & ~kept["low"].all(1)).double().mean().item()
    assert together == pytest.approx(0.18, abs=0.025)  # independently


def test_a_condition_without_a_share_is_never_dropped(denoise, network):
    denoise.loss(torch.zeros(64, 2).double(), text=torch.ones(64, 4))
    assert (network.calls[-1][1]["text"] == 1).all()


def test_drop_is_checked(denoise):
    x, text = torch.zeros(4, 2).double(), torch.ones(4, 4)
    with pytest.raises(ValueError, match=r"drop\['text'\]: expected a finite number in \[0, 1\]"):
        denoise.loss(x, text=text, drop={"text": 2})
    with pytest.raises(ValueError, match="names of given conditions, .'text'., got .'low'."):
        denoise.loss(x, text=text, drop={"low": 0.5})


def test_label_drop_and_drop_of_labels_draw_alike(generator):
    network = UNet3D(width=8, multipliers=(1,), spatial=(True,), temporal=(True,), head_channels=8)
    denoise, x = Denoiser(network, SCHEDULE), torch.zeros(4, 1, 2, 8, 8)
    losses = [denoise.loss(x, labels=torch.eye(10)[:4], generator=torch.Generator().manual_seed(1), **how).mean
              for how in ({"label_drop": 0.5}, {"drop": {"labels": 0.5}})]  # fmt: skip
    assert torch.equal(*losses)


# ---- guidance over a subset, both branches in one batch -------------------------------------------------------------


def test_guidance_by_a_subset_keeps_the_rest_in_both_branches(denoise, network, generator):
    z, text, low, w = normal(generator, 3, 2), torch.ones(1, 4), torch.ones(3, 2), 2.0
    guided = classifier_free(denoise.given(text=text, low=low), denoise.given(low=low), w)
    torch.testing.assert_close(guided(z, 0.5), 0.1 * z + 10 + (1 + w))  # (1 + w)(11) - w (10), with x_u = 10 + 0.1 z
    assert [call[0] for call in network.calls] == [6]  # text is zero where it is absent: one batch of both


def test_a_condition_whose_zeros_mean_something_takes_two_calls(denoise, network, generator):
    z, low = normal(generator, 3, 2), torch.ones(3, 2)
    torch.testing.assert_close(classifier_free(denoise.given(low=low), denoise.given(None), 1.0)(z, 0.5), 0.1 * z + 20)
    assert [call[0] for call in network.calls] == [3, 3]


@pytest.mark.parametrize("t", [0.5, torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0.4])], ids=["scalar", "each", "one"])
@pytest.mark.parametrize("labels", [torch.eye(10)[:3], torch.eye(10)[:1], torch.eye(10)[:3, None].expand(-1, 4, -1)])
def test_one_batch_gives_what_two_calls_give(t, labels, generator):
    network = UNet3D(width=8, multipliers=(1, 2), spatial=(True, True), temporal=(True, True), head_channels=8).eval()
    for p in network.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=generator)
    denoise, z = Denoiser(network.double(), SCHEDULE), normal(generator, 3, 1, 4, 8, 8)
    conditional, plain = denoise.given(labels), denoise.given(None)
    for one, alone in zip(both(conditional, plain, z, t), (conditional(z, t), plain(z, t)), strict=True):
        torch.testing.assert_close(one, alone, rtol=0, atol=1e-10)  # float64; kernels depend on the batch


def test_two_denoisers_are_called_one_after_the_other(generator):
    first, second = (Denoiser(Named().double(), SCHEDULE, "x") for _ in range(2))
    z = normal(generator, 3, 2)
    guided = classifier_free(first.given(text=torch.ones(1, 4)), second.given(None), 1.0)
    torch.testing.assert_close(guided(z, 0.5), 0.1 * z + 2)
    assert len(first.network.calls) == len(second.network.calls) == 1


def test_branches_of_another_shape_do_not_broadcast(denoise, generator):
    class OneFrame:
        schedule = SCHEDULE

        def __call__(self, z, t):
            return z[:, :1]

    with pytest.raises(ValueError, match="unconditional: expected x_hat of shape"):
        classifier_free(denoise.given(text=torch.ones(1, 4)), OneFrame(), 1.0)(normal(generator, 3, 2), 0.5)


def test_an_interval_the_wrong_way_round_is_refused(denoise):
    with pytest.raises(ValueError, match="interval: expected two log-SNR, the lower first"):
        classifier_free(denoise, denoise, 1.0, (5.0, -5.0))


def test_denoisers_that_take_conditions_are_told_from_bound_ones(denoise):
    assert isinstance(denoise, Conditional)
    assert not isinstance(denoise.given(None), Conditional)
