"""Tasks: what is asked of the denoiser, and which requests cannot be meant."""

from functools import partial

import pytest
import torch
from live_bytes import LiveBytes
from torch import nn

from minivdm import tasks
from minivdm.core import samplers
from minivdm.core.denoiser import Denoiser
from minivdm.core.guidance import classifier_free
from minivdm.core.observe import BadObservation, Downsample, Frames, NotDifferentiable, Pixels
from minivdm.core.schedules import CosineSchedule, VESchedule
from minivdm.exact import GaussianVideo


class Echo(nn.Module):
    """A network whose prediction of x is the mean of its labels, and -1 without labels."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, z, log_snr, labels=None, frame_mask=None):
        value = torch.full((len(z),), -1.0) if labels is None else labels.mean(1)
        return value.view(-1, 1, 1, 1, 1).expand_as(z) + self.weight


@pytest.fixture
def denoise():
    return Denoiser(Echo(), CosineSchedule(), target="x")


SHAPE = (1, 2, 4, 4)


def test_generate_follows_each_label(denoise, generator):
    labels = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    videos = tasks.generate(denoise, labels, shape=SHAPE, steps=3, generator=generator)
    assert videos.shape == (2, *SHAPE)
    torch.testing.assert_close(videos[:, 0, 0, 0, 0], torch.tensor([0.0, 0.5]))  # the last step returns x_hat


def test_one_label_serves_all_clips(denoise, generator):
    videos = tasks.generate(denoise, tasks.multi_hot([1], 2), count=3, shape=SHAPE, steps=2, generator=generator)
    torch.testing.assert_close(videos, torch.full((3, *SHAPE), 0.5))


def test_guidance_extrapolates_away_from_the_unconditional(denoise, generator):
    videos = tasks.generate(denoise, tasks.multi_hot([1], 2), shape=SHAPE, weight=2.0, steps=2, generator=generator)
    torch.testing.assert_close(videos, torch.full((1, *SHAPE), 3 * 0.5 + 2 * 1.0))  # (1 + w) x_c - w x_u, x_u = -1


def test_without_labels_the_unconditional_model_is_asked(denoise, generator):
    videos = tasks.generate(denoise, count=2, shape=SHAPE, steps=2, step=samplers.ancestral_step, generator=generator)
    torch.testing.assert_close(videos, torch.full((2, *SHAPE), -1.0))


@pytest.mark.parametrize("grid", [samplers.uniform_in_t, samplers.karras])
def test_generation_starts_from_the_prior_of_the_grids_first_time(grid, generator):
    # Data of variance 1 under exploding noise: sigma is 50 at t = 1. From N(0, 1) the samples would have std 0.02.
    world = GaussianVideo(2, 0.0)
    videos = tasks.generate(world.denoiser(VESchedule(0.01, 50.0)), count=4000, shape=world.shape, grid=grid, steps=40,
                            step=samplers.heun_step, generator=generator)  # fmt: skip
    assert videos.std().item() == pytest.approx(1, abs=0.05)  # 8,000 values: standard error 0.008; and 40 steps


def test_requests_that_cannot_be_meant(denoise):
    with pytest.raises(ValueError, match="1 or 3 rows"):
        tasks.generate(denoise, torch.zeros(2, 2), count=3, shape=SHAPE)
    with pytest.raises(ValueError, match="shape"):
        tasks.generate(denoise, torch.zeros(2, 2))
    with pytest.raises(ValueError, match="needs labels"):
        tasks.generate(denoise, count=1, shape=SHAPE, weight=1.0)
    with pytest.raises(ValueError, match="classes 0 to 9"):
        tasks.multi_hot([10])


# ---- extension, interpolation, super-resolution in a world whose answer is known ---------------------------------

SCHEDULE = CosineSchedule(-12, 12)
WORLD = GaussianVideo(16, 0.9)
exactly = {"clip": None, "step": samplers.ancestral_step}  # Gaussian values know no range


def block_of(frames):
    """The exact denoiser of the frames at these indices."""
    return GaussianVideo(len(frames), covariance=WORLD.covariance[frames][:, frames]).denoiser(SCHEDULE)


def distance(order, n=1000, known=range(4), **options):
    """W2 between the world and what 64 steps a block make from `known` true frames, the network holding 8."""
    generator = torch.Generator().manual_seed(1)
    x = WORLD.sample(n, generator)[:, :, list(known)]
    options = {"steps": 64, "generator": generator, **exactly, **options}
    made = tasks.extend(
        GaussianVideo(8, 0.9).denoiser(SCHEDULE),
        x,
        16,
        at=list(known),
        window=8,
        order=order,
        denoise_at=block_of,
        **options,
    )
    assert torch.equal(made[:, :, list(known)], x)
    return WORLD.wasserstein(made)


@pytest.mark.parametrize("order", [tasks.autoregressive, tasks.hierarchical], ids=["autoregressive", "hierarchical"])
@pytest.mark.parametrize("known", [range(4), range(12, 16), [0, 5, 10, 15]], ids=["forwards", "backwards", "between"])
def test_reconstruction_beats_replacement_block_by_block(order, known):
    replacement = distance(order, known=known, method="replacement")
    reconstruction = distance(order, known=known, reconstruction_weight=2.0)
    assert reconstruction < 0.8 * replacement


def test_the_langevin_corrector_brings_it_closer():
    plain = distance(tasks.autoregressive, reconstruction_weight=2.0)
    assert distance(tasks.autoregressive, reconstruction_weight=2.0, corrector=samplers.langevin_step) < 0.7 * plain


def test_in_one_block_it_is_the_sampler_of_the_closed_form_table():
    # 0.3725 exactly at w_r = 2 and 256 steps (test_propagate); 2000 draws add about 0.05 to it.
    generator = torch.Generator().manual_seed(1)
    x = WORLD.sample(2000, generator)[:, :, :4]
    made = tasks.extend(WORLD.denoiser(SCHEDULE), x, 16, window=16, steps=256, generator=generator, **exactly)
    assert 0.36 < WORLD.wasserstein(made) < 0.46


@pytest.mark.parametrize("draw", ["fresh", "posterior"])
@pytest.mark.parametrize("method", ["replacement", "reconstruction"])
def test_both_draws_work_with_both_methods(draw, method, generator):
    x = WORLD.sample(2, generator)[:, :, :4]
    made = tasks.extend(
        WORLD.denoiser(SCHEDULE), x, 16, window=16, steps=4, draw=draw, method=method, generator=generator, **exactly
    )
    assert made.isfinite().all() and torch.equal(made[:, :, :4], x)


@pytest.mark.parametrize("step", [samplers.ddim_step, samplers.heun_step, samplers.DPMSolverPlusPlus2M(),
                                  partial(samplers.ddim_step, eta=1.0)])  # fmt: skip
def test_any_step_any_grid(step, generator):
    x = WORLD.sample(2, generator)[:, :, :4]
    made = tasks.extend(
        WORLD.denoiser(SCHEDULE),
        x,
        24,
        window=16,
        step=step,
        steps=6,
        clip=None,
        grid=samplers.uniform_in_log_snr,
        generator=generator,
    )
    assert made.shape == (2, 1, 24, 1, 1) and made.isfinite().all()


def test_pigdm_variance_is_passed_on(generator):
    x = WORLD.sample(2, generator)[:, :, :4]
    made = [tasks.extend(WORLD.denoiser(SCHEDULE), x, 16, window=16, steps=4, variance=variance, clip=None,
                         reconstruction_weight=0.5, generator=torch.Generator().manual_seed(0))
            for variance in ("vdm", "pigdm")]  # fmt: skip
    assert not torch.allclose(*made)


SPACE = GaussianVideo(4, 0.9, size=(4, 4), pixel_correlation=0.9)


@pytest.mark.parametrize("every", [1, 2])
def test_super_resolution_agrees_with_what_was_seen(every, generator):
    x = SPACE.sample(32, generator)
    low = Downsample(2, every)(x)
    misses = []
    for weight in (0.0, 1.0, 3.0):
        made = tasks.super_resolve(
            SPACE.denoiser(SCHEDULE),
            low,
            2,
            every,
            frames=4,
            window=4,
            clip=None,
            steps=48,
            reconstruction_weight=weight,
            generator=generator,
        )
        assert made.shape == x.shape
        misses.append((Downsample(2, every)(made) - low).square().mean().sqrt())
    assert misses[0] > 3 * misses[2] and misses[1] > misses[2]


def test_super_resolution_and_extension_at_once(generator):
    # VDM figure 2: a long small video, the first frames at full size; every block sees both.
    long = GaussianVideo(10, 0.9, size=(4, 4), pixel_correlation=0.9)
    x = long.sample(16, generator)
    low = Downsample(2)(x)
    made = tasks.super_resolve(
        SPACE.denoiser(SCHEDULE),
        low,
        first=x[:, :, :2],
        window=4,
        clip=None,
        steps=48,
        reconstruction_weight=3.0,
        generator=generator,
    )
    assert torch.equal(made[:, :, :2], x[:, :, :2])
    assert (Downsample(2)(made) - low).square().mean().sqrt() < 0.3
    # what the block before made is seen: neighbouring frames belong together, as much as true ones about
    assert (made[:, :, 2:].diff(dim=2)).square().mean() < 2 * x.diff(dim=2).square().mean()


def test_inpainting_through_any_operator(generator):
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:, :2] = True
    x = SPACE.sample(16, generator)
    made = tasks.restore(
        SPACE.denoiser(SCHEDULE),
        [(Pixels(mask), Pixels(mask)(x))],
        SPACE.shape,
        clip=None,
        steps=48,
        reconstruction_weight=3.0,
        generator=generator,
    )
    assert (made - x)[..., :2].square().mean() < 0.1 < (made - x)[..., 2:].square().mean()


# ---- what a block shows the network -------------------------------------------------------------------------------


class Watching(nn.Module):
    """Predicts the labels' mean, and remembers what it was called with."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.frames, self.labels = [], []

    def forward(self, z, log_snr, labels=None, frame_mask=None):
        self.frames.append(z.shape[2])
        self.labels.append(labels)
        mean = torch.zeros(()) if labels is None else labels.mean(-1).reshape(len(labels), 1, -1, 1, 1)
        return z * self.weight + 0 * z + mean


def watching():
    network = Watching()
    return network, Denoiser(network, SCHEDULE, target="x")


def test_256_frames_take_the_memory_of_a_block(generator):
    peaks = []
    for frames in (32, 256):
        network, denoise = watching()
        video = torch.zeros(1, 1, 8, 8, 8)
        with LiveBytes() as meter:
            made = tasks.extend(denoise, video, frames, window=8, steps=2, generator=generator)
        assert made.shape[2] == frames and set(network.frames) == {8}
        peaks.append(meter.peak - made.untyped_storage().nbytes())  # without the result itself
    assert peaks[1] <= 1.05 * peaks[0]


def test_labels_reach_every_block_and_may_differ_by_frame(generator):
    network, denoise = watching()
    labels = torch.zeros(1, 12, 2)
    labels[:, 8:, 1] = 1.0
    options = {"window": 8, "method": "replacement", "steps": 1, "generator": generator}
    video = tasks.extend(denoise, torch.zeros(2, 1, 4, 4, 4), 12, labels=labels, **options)
    torch.testing.assert_close(video[0, 0, :, 0, 0], torch.tensor([0.0] * 8 + [0.5] * 4))
    assert all(seen.shape == (2, 8, 2) for seen in network.labels)
    labels = torch.tensor([[0.0, 1.0]])
    guided = tasks.extend(denoise, torch.zeros(1, 1, 4, 4, 4), 8, labels=labels, weight=0.5, **options)
    torch.testing.assert_close(guided[0, 0, 4:, 0, 0], torch.full((4,), 0.75))  # (1 + w) 0.5 - w 0


def test_any_guidance_may_be_given(generator):
    network, denoise = watching()
    guided = classifier_free(denoise.given(torch.tensor([[0.0, 1.0]])), denoise.given(None), 0.5)
    video = tasks.extend(
        guided, torch.zeros(1, 1, 4, 4, 4), 8, window=8, method="replacement", steps=1, generator=generator
    )
    torch.testing.assert_close(video[0, 0, 4:, 0, 0], torch.full((4,), 0.75))


def test_interpolation_puts_the_known_frames_apart(generator):
    _, denoise = watching()
    video = torch.rand(1, 1, 3, 4, 4, generator=generator)
    made = tasks.interpolate(denoise, video, 2, window=8, steps=2, generator=generator)
    assert made.shape[2] == 7 and torch.equal(made[:, :, ::3], video)


def test_backwards_and_joining_keep_the_known_frames_where_they_belong(generator):
    _, denoise = watching()
    video = torch.rand(1, 1, 4, 4, 4, generator=generator)
    back = tasks.extend(denoise, video, 12, backwards=True, window=8, steps=2, generator=generator)
    assert torch.equal(back[:, :, 8:], video)
    both = tasks.extend(denoise, video, 10, at=[0, 1, 8, 9], window=8, steps=2, generator=generator)
    assert torch.equal(both[:, :, [0, 1, 8, 9]], video)


def test_what_was_made_stays_within_the_data(generator):
    _, denoise = watching()
    options = {"window": 8, "labels": 9 * torch.ones(1, 2), "steps": 2, "generator": generator}
    assert tasks.extend(denoise, torch.ones(1, 1, 4, 4, 4), 8, **options).abs().max() == 1
    assert tasks.extend(denoise, torch.ones(1, 1, 4, 4, 4), 8, clip=None, **options).abs().max() == 9


def test_one_bar_counts_the_steps_of_all_blocks(generator, capsys):
    _, denoise = watching()
    seen = []
    tasks.extend(
        denoise,
        torch.zeros(1, 1, 4, 4, 4),
        16,
        window=8,
        steps=5,
        progress=True,
        generator=generator,
        callback=lambda z, t: seen.append(float(t)),
    )
    assert "15/15" in capsys.readouterr().err and len(seen) == 15


def test_the_same_seed_gives_the_same_video():
    denoise, video = WORLD.denoiser(SCHEDULE), torch.zeros(1, 1, 4, 1, 1)
    made = [tasks.extend(denoise, video, 24, window=16, steps=3, step=samplers.ancestral_step,
                         generator=torch.Generator().manual_seed(3)) for _ in range(2)]  # fmt: skip
    assert torch.equal(*made)


# ---- errors, before anything is sampled ---------------------------------------------------------------------------

VIDEO = torch.zeros(2, 1, 4, 4, 4)
WRONG = {
    "no new frames": (lambda d: tasks.extend(d, VIDEO, 4, window=8), tasks.NoNewFrames, "more than the 4 known"),
    "no frames between": (lambda d: tasks.interpolate(d, VIDEO, 0, window=8), tasks.NoNewFrames, "at least 1"),
    "nothing to enlarge": (lambda d: tasks.super_resolve(d, VIDEO, 1, window=8), tasks.NoNewFrames, "above 1"),
    "one frame alone": (lambda d: tasks.interpolate(d, VIDEO[:, :, :1], 2, window=8), BadObservation, "least 2"),
    "not in range": (lambda d: tasks.extend(d, VIDEO + 2, 8, window=8), BadObservation, "got 2 to 2"),
    "small video not in range": (lambda d: tasks.super_resolve(d, VIDEO + 2, window=8), BadObservation, "got 2"),
    "nan": (lambda d: tasks.extend(d, VIDEO * torch.nan, 8, window=8), BadObservation, "finite"),
    "bytes": (lambda d: tasks.extend(d, VIDEO.byte(), 8, window=8), BadObservation, "floating-point"),
    "no video": (lambda d: tasks.extend(d, VIDEO[0], 8, window=8), BadObservation, r"\(b, c, f, h, w\)"),
    "places": (lambda d: tasks.extend(d, VIDEO, 8, window=8, at=[0, 1]), BadObservation, "index for each"),
    "too many observed": (
        lambda d: tasks.extend(d, VIDEO, 8, window=8, order=partial(tasks.autoregressive, overlap=8)),
        tasks.TooManyObserved,
        "0 to 7",
    ),
    "a block too large": (
        lambda d: tasks.extend(d, VIDEO, 8, window=4, order=[(range(4), range(4, 8))]),
        tasks.TooManyObserved,
        "at most the 4",
    ),
    "all observed": (
        lambda d: tasks.restore(d, [(Frames(range(4)), VIDEO)], (1, 4, 4, 4)),
        tasks.TooManyObserved,
        "fewer observed frames than the 4",
    ),
    "order": (lambda d: tasks.extend(d, VIDEO, 8, window=8, order=[([7], [6])]), tasks.BadOrder, "not there yet"),
    "method": (lambda d: tasks.extend(d, VIDEO, 8, window=8, method="magic"), ValueError, "'replacement'"),
    "weight": (
        lambda d: tasks.extend(d, VIDEO, 8, window=8, reconstruction_weight=-1),
        ValueError,
        "reconstruction_weight: exp",
    ),
    "draw": (lambda d: tasks.extend(d, VIDEO, 8, window=8, draw="stale"), ValueError, "'posterior'"),
    "variance": (lambda d: tasks.extend(d, VIDEO, 8, window=8, variance="dps"), ValueError, "'pigdm'"),
    "steps": (lambda d: tasks.extend(d, VIDEO, 8, window=8, steps=0), ValueError, "steps: expected at least 1"),
    "window": (lambda d: tasks.extend(d, VIDEO, 8), ValueError, "window"),
    "labels": (lambda d: tasks.extend(d, VIDEO, 8, window=8, labels=torch.zeros(3, 2)), ValueError, "labels"),
    "labels of frames": (
        lambda d: tasks.extend(d, VIDEO, 8, window=8, labels=torch.zeros(2, 7, 2)),
        ValueError,
        "8 frames",
    ),
    "replacement of pixels": (
        lambda d: tasks.super_resolve(d, VIDEO, window=8, method="replacement"),
        BadObservation,
        "whole frames alone",
    ),
    "first": (lambda d: tasks.super_resolve(d, VIDEO, window=8, first=VIDEO), BadObservation, "first"),
    "frames": (lambda d: tasks.super_resolve(d, VIDEO, 2, 2, frames=9, window=8), BadObservation, "5 frames"),
    "observation": (lambda d: tasks.restore(d, [(Downsample(2), VIDEO)], (1, 4, 4, 4)), BadObservation, "shape"),
    "no gradient": (lambda d: tasks.restore(d, [(torch.round, VIDEO)], (1, 4, 4, 4)), NotDifferentiable, "gradient"),
    "nothing observed": (lambda d: tasks.restore(d, [], (1, 4, 4, 4)), BadObservation, "pairs of an operator"),
    "an option misspelt": (
        lambda d: tasks.extend(d, VIDEO, 8, window=8, stpes=8),
        TypeError,
        "stpes: expected options",
    ),
    "a grid of another length": (
        lambda d: tasks.extend(d, VIDEO, 8, window=8, steps=8, grid=[1.0, 0.5, 0.0]),
        ValueError,
        "a grid of 8 steps, got one of 2",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_come_before_the_network_is_asked(name):
    network, denoise = watching()
    call, error, says = WRONG[name]
    with pytest.raises(error, match=says):
        call(denoise)
    assert not network.frames


def test_labels_need_a_denoiser_that_takes_them():
    _, denoise = watching()
    with pytest.raises(TypeError, match="bound already"):
        tasks.extend(denoise.given(None), VIDEO, 8, window=8, labels=torch.zeros(1, 2))


# ---- self-conditioning --------------------------------------------------------------------------------------------


def test_a_network_made_for_it_is_handed_its_last_estimate(generator):
    class Sees(nn.Module):
        config = {"self_conditioning": True}
        zero_is_absent = ("labels", "estimate")

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))
            self.estimates = []

        def forward(self, z, log_snr, labels=None, frame_mask=None, estimate=None):
            self.estimates.append(estimate)
            return 0 * z + 0.25 + (0 if estimate is None else 0.5 * estimate) + self.weight

    network = Sees()
    near = [0.55, 0.5, 0.45, 0.0]  # steps short enough for an estimate to be handed on
    made = tasks.generate(Denoiser(network, SCHEDULE, "x"), torch.eye(2)[:1], weight=1.0, shape=SHAPE, grid=near)
    assert [seen is None for seen in network.estimates] == [True, False, False]
    torch.testing.assert_close(made, torch.full((1, *SHAPE), 0.25 + 0.5 * (0.25 + 0.5 * 0.25)))
