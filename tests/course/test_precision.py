"""Answers that are right but for a float32 number somewhere, or that are exact, pass with every seed; and what the
text of an exercise demands beside the value is looked at."""

import contextlib
import io

import mutation
import pytest

from minivdm.course import checks

#: (assignment, function, what the official solution has, what many people write)
IDIOMS = [
    ("01_forward_sdes", "euler_maruyama_step", "dt**0.5", "torch.sqrt(torch.tensor(dt))"),
    ("01_forward_sdes", "moment_rates", ", dtype=moments.dtype", ""),
    ("02_noise_schedules", "cosine_density", "math.atan(math.exp(-log_snr_max / 2))",
     "torch.atan(torch.exp(torch.tensor(-log_snr_max / 2)))"),
    ("03_score_matching", "langevin_step", "a**0.5", "torch.sqrt(torch.tensor(a))"),
    ("03_score_matching", "annealed_langevin", "(i / (levels - 1))", "torch.linspace(0, 1, levels)[i]"),
    ("03_score_matching", "annealed_langevin", "(i / (levels - 1))", "(torch.arange(levels) / (levels - 1))[i]"),
    ("04_from_elbo_to_mse", "step_price", "math.log(kappa)", "torch.log(torch.tensor(kappa))"),
    ("04_from_elbo_to_mse", "both_ends", "math.log(2 * math.pi)", "torch.log(torch.tensor(2 * math.pi))"),
    ("04_from_elbo_to_mse", "bits_per_value", "math.log(127.5)", "-torch.log(torch.tensor(2 / 255))"),
    ("04_from_elbo_to_mse", "gaussian_diffusion", "std**2", "torch.tensor(std) ** 2"),
    ("05_v_parameterization", "min_snr_weight", "(gamma * ", "(torch.tensor(gamma) * "),
    ("05_v_parameterization", "edm_coefficients", "sigma_d**2", "torch.tensor(sigma_d) ** 2"),
    ("06_samplers", "langevin_step", "delta**0.5", "torch.tensor(delta).sqrt()"),
    ("06_samplers", "any_noise_step", "(t - s) ** 0.5", "torch.tensor(t - s).sqrt()"),
    ("06_samplers", "log_likelihood", "math.log(std)", "torch.log(torch.tensor(std))"),
    ("07_guidance", "projected", "(radius / dot", "(torch.tensor(radius) / dot"),
    ("07_guidance", "flow_variance", "shrunk_a = a / ", "shrunk_a = torch.tensor(a) / "),
    ("08_factorized_3d_unet", "best_weights", "* rho", "* torch.tensor(rho)"),
    ("09_training_on_moving_mnist", "learning_rate", "math.cos(math.pi * done)",
     "torch.cos(torch.tensor(math.pi * done))"),
    ("09_training_on_moving_mnist", "clip_gradients", "limit / norm", "limit / (norm + 1e-6)"),
    ("09_training_on_moving_mnist", "ema_update", "0.5 ** (1 / half_life)", "torch.tensor(0.5) ** (1 / half_life)"),
    ("10_extending_videos", "path_replacement", "(1 - share**2) ** 0.5", "torch.tensor(1 - share**2).sqrt()"),
    ("10_extending_videos", "two_frames", "rho**2", "torch.tensor(rho) ** 2"),
    ("12_evaluating_video", "frechet_of_features", "(len(part) - 1) ** 0.5", "torch.tensor(len(part) - 1.0).sqrt()"),
    ("12_evaluating_video", "best_of_two", "2 / math.pi", "torch.sqrt(torch.tensor(2 / math.pi)) ** 2"),
    ("08_factorized_3d_unet", "channels_between", "full / per_channel", "Fraction(full, per_channel)"),
    ("09_training_on_moving_mnist", "mean_time_variances", "1 / (12 * n), 1 / (12 * n**3)",
     "Fraction(1, 12 * n), Fraction(1, 12 * n**3)"),
]  # fmt: skip


@pytest.mark.parametrize(("assignment", "name", "official", "idiom"), IDIOMS, ids=lambda part: part[:24])
def test_a_right_answer_in_single_precision_or_in_fractions_is_right(assignment, name, official, idiom):
    setup, cells = mutation.solutions(assignment)
    assert official in cells[name]
    space = mutation.namespace(f"import math\nfrom fractions import Fraction\n{setup}")
    answer = mutation.defined(cells[name].replace(official, idiom), name, space)
    for seed in range(12):
        with contextlib.redirect_stdout(io.StringIO()):
            checks.checks_of(assignment)[name](answer, seed=seed)


#: (assignment, function, what the official solution has, a change that keeps the value but breaks a demand of the text)
DEMANDS = [
    ("09_training_on_moving_mnist", "v_loss", "return (v_hat - v)", "return (v_hat - v).detach()"),
    ("09_training_on_moving_mnist", "v_loss", "schedule.log_snr(t).to(x)", "schedule.log_snr(t)"),
    ("03_score_matching", "denoising_loss", "return error", "return error.detach()"),
    ("03_score_matching", "posterior_moments", "mean.detach()", "mean"),
    ("10_extending_videos", "seam_score", "for seam in seams", "for seam in seams[:1]"),
    ("10_extending_videos", "masked_replacement",
     "torch.where(given, x if s == 0 else alpha_s * x + sigma_s * noise, z)",
     "given * (x if s == 0 else alpha_s * x + sigma_s * noise) + ~given * z"),
    ("10_extending_videos", "path_replacement", "z[:, :, frames]", "z[:, :, sorted(frames)]"),
    ("10_extending_videos", "guided_by_reconstruction", "x_hat[:, :, frames]",
     "x_hat[:, :, list(dict.fromkeys(frames))]"),
    ("10_extending_videos", "guided_by_reconstruction", "x_hat[:, :, frames]", "x_hat[:, :, sorted(frames)]"),
    ("10_extending_videos", "guided_by_reconstruction", "return x_hat.detach()", "return denoise(z)"),
    ("10_extending_videos", "guided_by_reconstruction", "    return x_hat.detach()", "        return x_hat"),
    ("11_super_resolution", "super_resolve", "return x_hat.detach()", "return denoise(z, t)"),
    ("06_samplers", "ancestral_step", "* noise", "* noise * (s > 0)"),
    ("06_samplers", "karras_step", "(slope +", "((z - denoise(z, sigma_t)) / sigma_t +"),
    ("04_from_elbo_to_mse", "full_kl", "torch.linalg.solve(cov_p, cov_q)", "(torch.linalg.inv(cov_p) @ cov_q)"),
    ("09_training_on_moving_mnist", "clip_gradients", "return [", "return gradients if norm <= limit else ["),
    ("07_guidance", "guided_by_classifier", "z.detach().requires_grad_()", "z.requires_grad_()"),
    ("08_factorized_3d_unet", "temporal_attention", "-torch.inf", "-100"),
    ("02_noise_schedules", "log_linear_schedule", "variance.sqrt()", "(1 - torch.sigmoid(log_snr)).sqrt()"),
]  # fmt: skip


@pytest.mark.parametrize(("assignment", "name", "official", "change"), DEMANDS, ids=lambda part: part[:24])
def test_what_the_text_demands_beside_the_value_is_looked_at(assignment, name, official, change):
    setup, cells = mutation.solutions(assignment)
    assert official in cells[name]
    answer = mutation.defined(cells[name].replace(official, change), name, mutation.namespace(setup))
    for seed in range(3):
        with pytest.raises(checks.CheckFailed):
            checks.checks_of(assignment)[name](answer, seed=seed)
