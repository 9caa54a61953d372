r"""A denoiser, (z, t) -> x_hat, made of a network, a noise schedule and a prediction target (see targets).

Its conditions go by name: `denoiser.given(labels, text=...)` binds them and is (z, t) -> x_hat again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from minivdm.core.gaussian import diffuse, expand, noise_like
from minivdm.core.schedules import Schedule, as_time
from minivdm.core.targets import TARGETS, Preconditioning, loss_weight, preconditioning, stratified_times
from minivdm.guards import BadArgument, BadType, batch, check_types, one_of, real, span


class Denoise(Protocol):
    """What samplers and guidance ask of a denoiser: (z, t) -> x_hat, and the schedule that noised z."""

    @property
    def schedule(self) -> Schedule: ...

    def __call__(self, z: Tensor, t: Any, /) -> Tensor: ...


def schedule_of(denoise: Any) -> Schedule:
    """The schedule that a denoiser carries; BadType for what is no denoiser."""
    schedule = getattr(denoise, "schedule", None)
    if not callable(denoise) or not isinstance(schedule, Schedule):
        raise BadType(
            "denoise: expected a denoiser, (z, t) -> x_hat, that carries its noise schedule as .schedule, "
            f"got {type(denoise).__name__}"
        )
    return schedule


@runtime_checkable
class Conditional(Denoise, Protocol):
    """A denoiser that takes conditions: `given(labels)`, or others by name, is (z, t) -> x_hat; `given(None)`: none."""

    def given(self, labels: Tensor | None = None, **conditions: Any) -> Denoise: ...


class Loss(NamedTuple):
    """mean: the scalar to differentiate. per_sample: (b,), a mean over each sample's values. log_snr: (b,)."""

    mean: Tensor
    per_sample: Tensor
    log_snr: Tensor


class Denoiser(nn.Module):
    """x_hat(z, t), an estimate of E[x | z_t = z], from a network trained to predict `target`.

    network: called `network(z, log_snr, **conditions)` with z like x, e.g. (b, c, f, h, w), log_snr (b,), and those
        conditions that are given, by name, each with the batch first: `labels`, or whatever its `forward` names; a
        `frame_mask` may do without the batch. Returns a tensor like z. Where zeros of a condition stand for its
        absence, `network.zero_is_absent` names it.
    target: "x", "eps", "v", "score", "velocity" or "edm". sigma_data: standard deviation of the data, for "edm".
    bounds: range of the data where they have one, (-1, 1) for videos; `loss` then refuses others.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        target: str = "v",
        sigma_data: float = 1.0,
        bounds: tuple[float, float] | None = None,
    ):
        super().__init__()
        one_of("target", target, TARGETS)
        real("sigma_data", sigma_data, least=0, above=True)
        if not callable(network) or not isinstance(schedule, Schedule):
            got = f"{type(network).__name__} and {type(schedule).__name__}"
            raise BadType(f"network, schedule: expected a network and a Schedule, got {got}")
        if bounds is not None:
            span("bounds", bounds)
        self.network, self.schedule, self.target, self.sigma_data = network, schedule, target, sigma_data
        self.bounds = bounds

    def _bind(self, z: Tensor, conditions: Mapping[str, Tensor | None], dtype: torch.dtype) -> dict[str, Tensor]:
        """The conditions that are given, one row a sample, where and in what precision the network wants them."""
        given = {name: value for name, value in conditions.items() if value is not None}
        check_conditions(self.network, given)
        bound = {}
        for name, value in given.items():
            if name != "frame_mask":
                if value.shape[0] not in (1, len(z)):
                    raise BadArgument(f"expected {name} for 1 or {len(z)} samples, got {value.shape[0]}")
                value = value.expand(len(z), *value.shape[1:])
            as_float = value.is_floating_point() or name == "labels"
            bound[name] = value.to(z.device, dtype if as_float else value.dtype)
        return bound

    def predict(self, z: Tensor, t: Tensor | float, **conditions: Tensor | None) -> tuple[Tensor, Preconditioning]:
        """The network's own output F (like z), and the coefficients that turn it into x_hat."""
        batch("z", z)
        t, schedule = times_for(len(z), t), self.schedule
        slopes = (schedule.alpha_slope(t), schedule.sigma_slope(t)) if self.target == "velocity" else None
        coefficients = preconditioning(self.target, schedule.alpha(t), schedule.sigma(t), self.sigma_data, slopes)
        weight = next(self.network.parameters(), z) if isinstance(self.network, nn.Module) else z
        dtype = weight.dtype if weight.is_floating_point() else z.dtype
        # Where the SNR is 0 or infinite the network is told the last finite one.
        log_snr = schedule.log_snr(t.clamp(schedule.t_min, schedule.t_max)).to(z.device, dtype).expand(len(z))
        scaled = (expand(coefficients.scale, z) * z).to(dtype)
        output = self.network(scaled, log_snr, **self._bind(z, conditions, dtype))
        if not isinstance(output, Tensor) or output.shape != z.shape:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise BadArgument(f"network: expected an output of its input's shape {tuple(z.shape)}, got {got}")
        return output.to(z.dtype), coefficients  # under autocast the network answers in half precision

    def forward(
        self, z: Tensor, t: Tensor | float, labels: Tensor | None = None, **conditions: Tensor | None
    ) -> Tensor:
        """x_hat, of z's shape. t: scalar or (b,). labels and others: see `given`."""
        output, (skip, out, _) = self.predict(z, t, labels=labels, **conditions)
        return expand(skip, z) * z + expand(out, z) * output

    def given(self, labels: Tensor | None = None, **conditions: Tensor | None) -> Conditioned:
        """The denoiser of p(x | conditions), again (z, t) -> x_hat; `given(None)` is the unconditional one.

        labels: (b, n_labels) or (b, f, n_labels) multi-hot; (1, ...) serves every sample alike, and so for any other
        condition that the network takes, by its name. BadType for a name that it does not take.
        """
        given = {name: value for name, value in {"labels": labels, **conditions}.items() if value is not None}
        check_conditions(self.network, given)
        return Conditioned(self, given)

    def loss(
        self,
        x: Tensor,
        *,
        labels: Tensor | None = None,
        label_drop: float = 0.1,
        t: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        weighting: str | Callable[[Tensor], Tensor] = "v",
        drop: Mapping[str, float] | None = None,
        **conditions: Tensor | None,
    ) -> Loss:
        """E over t and eps of w(lambda_t) ||x - x_hat(z_t)||^2 / (values per sample) (VDM eq 2).

        x: clean data, (b, ...), e.g. videos (b, c, f, h, w) in [-1, 1]. labels, conditions: as in `given`; a sample's
        labels are zeroed as a whole with probability `label_drop`, which teaches the unconditional model (Ho &
        Salimans 2021), another condition with probability `drop[name]`, each by itself. t: (b,) times, stratified
        where None. noise: eps, drawn where None. weighting: a name known to `loss_weight`, or a function of lambda
        (float64) that returns w.
        Raises BadType for integers, DataRangeError for x outside `bounds` (not looked for on an accelerator, which
        would have to be waited for), BadArgument for a probability outside [0, 1] and shapes that do not fit.
        """
        _check_data(x, self.bounds)
        given = {name: value for name, value in {"labels": labels, **conditions}.items() if value is not None}
        check_conditions(self.network, given)
        if not isinstance(drop, Mapping | None) or not (isinstance(weighting, str) or callable(weighting)):
            raise BadType(f"drop, weighting: expected a mapping and a name or function, got {drop!r}, {weighting!r}")
        dropped = {"labels": real("label_drop", label_drop, 0, 1), **(drop or {})}
        if unknown := dropped.keys() - given.keys() - {"labels"}:
            raise BadArgument(f"drop: expected names of given conditions, {sorted(given)}, got {sorted(unknown)}")
        b = x.shape[0]
        t = stratified_times(b, self.schedule, generator, x.device) if t is None else times_for(b, t).expand(b)
        noise = noise_like(x, generator) if noise is None else noise
        for name in [name for name in given if name in dropped]:
            if real(f"drop[{name!r}]", dropped[name], 0, 1) > 0:
                rows = given[name].expand(b, *given[name].shape[1:]) if given[name].shape[0] == 1 else given[name]
                given[name] = drop_labels(rows, dropped[name], generator)

        z = diffuse(x, t, self.schedule, noise)
        output, (skip, out, _) = self.predict(z, t, **given)
        # F* = (x - skip z) / out, in terms of x and eps: no float32 difference is divided by a small number.
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        goal = expand((1 - skip * alpha) / out, x) * x - expand(skip * sigma / out, x) * noise

        log_snr = self.schedule.log_snr(t)
        if isinstance(weighting, str):
            weight = loss_weight(weighting, t, self.schedule, self.sigma_data)
        else:
            weight = torch.as_tensor(weighting(log_snr))
            if weight.shape not in ((), (b,)):
                raise BadArgument(f"weighting: expected one weight per sample, ({b},), got shape {tuple(weight.shape)}")
        error = (output - goal).square().flatten(1).mean(1)  # ||F - F*||^2 = ||x - x_hat||^2 / out^2
        per_sample = (weight * out**2).to(error) * error
        return Loss(per_sample.mean(), per_sample, log_snr)


class DataRangeError(BadArgument):
    """Clean data outside the range that they should lie in, such as pixels in 0 .. 255."""


def _check_data(x: Tensor, bounds: tuple[float, float] | None) -> None:
    batch("x", x)
    if bounds is not None and x.device.type == "cpu":
        low, high = (float(end) for end in torch.aminmax(x.detach()))
        if not (low >= bounds[0] - 1e-3 and high <= bounds[1] + 1e-3):  # NaN as well; 1e-3 is for rounding
            raise DataRangeError(f"x: expected data in {list(bounds)}, got {low:.4g} to {high:.4g}")


def times_for(b: int, t: Tensor | float) -> Tensor:
    """Times for b samples: a scalar or (b,)."""
    t = as_time(t)
    if t.ndim > 1 or (t.ndim == 1 and len(t) not in (1, b)):
        raise BadArgument(f"t: expected a scalar or one time per sample, ({b},), got shape {tuple(t.shape)}")
    return t


def _bare(network: Any) -> Any:
    """The network itself, without what compiles it or spreads it over processes."""
    while inner := getattr(network, "_orig_mod", None) or getattr(network, "module", None):
        network = inner
    return network


def check_conditions(network: Any, conditions: Mapping[str, Any]) -> None:
    """BadType for a condition that is no tensor, or whose name `network.forward` does not take."""
    for name, value in conditions.items():
        if not isinstance(value, Tensor) or value.ndim == 0:
            got = "a scalar" if isinstance(value, Tensor) else type(value).__name__
            raise BadType(f"{name}: expected a tensor with the batch first, got {got}")
    if not conditions:
        return
    parameters = list(inspect.signature(getattr(_bare(network), "forward", network)).parameters.values())
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    names = [p.name for p in parameters[2:]]  # after z and log_snr
    if unknown := [name for name in conditions if name not in names]:
        raise BadType(f"conditions: this network takes {', '.join(names) or 'none'}; got {', '.join(unknown)}")


class Conditioned:
    """A denoiser with its conditions bound: (z, t) -> x_hat, differentiable in z, carrying `.schedule`."""

    def __init__(self, denoiser: Denoiser, conditions: Mapping[str, Tensor]) -> None:
        self.denoiser, self.conditions, self.schedule = denoiser, dict(conditions), denoiser.schedule

    def __call__(self, z: Tensor, t: Tensor | float) -> Tensor:
        return self.denoiser(z, t, **self.conditions)


def both(first: Denoise, second: Denoise, z: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
    """first(z, t) and second(z, t), in one batch of twice the size where both are one network with other conditions.

    A condition that one of them lacks is zero there, if the network says that zeros mean that (`zero_is_absent`);
    otherwise, and for denoisers of any other kind, two calls are made.
    """
    batch("z", z)
    one, two = (Conditioned(d, {}) if isinstance(d, Denoiser) else d for d in (first, second))
    if isinstance(one, Conditioned) and isinstance(two, Conditioned) and one.denoiser is two.denoiser:
        joined = _joined(one, two, len(z))
        if joined is not None:
            times = times_for(len(z), t)
            times = times.expand(len(z)).repeat(2) if times.ndim else times
            x_hat = one.denoiser(torch.cat([z, z]), times, **joined)
            return x_hat[: len(z)], x_hat[len(z) :]
    return first(z, t), second(z, t)


def _joined(one: Conditioned, two: Conditioned, b: int) -> dict[str, Tensor] | None:
    """The conditions of both, (2b, ...), or None where they do not fit into one batch."""
    joined: dict[str, Tensor] = {}
    for name in one.conditions.keys() | two.conditions.keys():
        parts = [denoise.conditions.get(name) for denoise in (one, two)]
        there = [part for part in parts if part is not None]
        if name == "frame_mask":
            if len(there) < 2 or there[0] is not there[1] or there[0].ndim != 2:
                return None
            joined[name] = there[0]
            continue
        if len(there) < 2 and name not in getattr(_bare(one.denoiser.network), "zero_is_absent", ()):
            return None
        if there[0].shape[1:] != there[-1].shape[1:] or any(len(part) not in (1, b) for part in there):
            return None
        rows = [torch.zeros_like(there[0]) if part is None else part for part in parts]
        joined[name] = torch.cat([row.expand(b, *row.shape[1:]) for row in rows])
    return joined


def drop_labels(labels: Tensor, probability: float, generator: torch.Generator | None = None) -> Tensor:
    """Labels with whole samples zeroed, each with the given probability. labels: (b, ...), or any other condition."""
    if labels.ndim == 0:
        raise BadArgument("labels: expected the batch first, got a scalar")
    device = labels.device if generator is None else generator.device
    keep = torch.rand(labels.shape[0], generator=generator, device=device) >= real("probability", probability, 0, 1)
    return labels * keep.to(labels).view(-1, *[1] * (labels.ndim - 1))


check_types(globals())
