r"""Self-conditioning: the network sees its own last estimate of the clip (Chen, Zhang & Hinton 2022, "Analog Bits").

A sampler asks a denoiser tens of times about one clip, and each answer x_hat is thrown away but for what the step keeps
of it in z_s, under fresh or remaining noise. A network that is handed the answer before refines it instead of finding
it anew: what it had decided, such as which digit this is, it need not decide again.

In training half of the samples get an estimate: the network's own, at the same z_t, computed without gradient and with
no estimate as its condition (their algorithm 1; `minivdm.training.trainer`). The other half get none, so that the
network works without as well.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from minivdm.core.denoiser import Denoise
from minivdm.core.schedules import Schedule, as_time


class SelfConditioned:
    """A denoiser (z, t) -> x_hat for one run of a sampler, which hands on its last estimate (their algorithm 2).

    It begins anew, without an estimate, when a time is later than the one before or the shape of z is another one: a
    new sampling run. Between two calls of a run, times fall or stay. Times that rise, as in inversion, get none.
    Neither does a step that is too long: in training an estimate was made at the noise level at which it was used, and
    one made in much more noise, a faint mean of many clips, would hold the network back. With eight steps of even
    length in t this leaves out the first.

    Args:
        build: an estimate, or None where there is none yet -> the denoiser to ask, guided or not. One estimate thus
            serves both branches of guidance, and it is the guided one.
        schedule: that of the denoiser.
        bounds: range of the data, into which the estimate is clipped, as in training.
        reach: by how much the log-SNR may have risen since the estimate was made.
    """

    def __init__(
        self,
        build: Callable[[Tensor | None], Denoise],
        schedule: Schedule,
        bounds: tuple[float, float] = (-1.0, 1.0),
        reach: float = 1.5,
    ) -> None:
        self.build, self.schedule, self.bounds, self.reach = build, schedule, bounds, reach
        self._estimate: Tensor | None = None
        self._time: Tensor | None = None

    def __call__(self, z: Tensor, t: Tensor | float) -> Tensor:
        time = as_time(t)
        last = self._estimate
        if last is not None and self._time is not None:
            same_run = last.shape == z.shape and self._time.shape == time.shape and bool((time <= self._time).all())
            if not same_run or bool((self._level(time) - self._level(self._time) > self.reach).any()):
                last = None
        x_hat = self.build(last)(z, t)
        self._estimate, self._time = x_hat.detach().clamp(*self.bounds), time
        return x_hat

    def _level(self, t: Tensor) -> Tensor:
        """log-SNR, but at least -6: in more noise than that every estimate is much the same mean."""
        return self.schedule.log_snr(t.clamp(self.schedule.t_min, self.schedule.t_max)).clamp(min=-6)


def takes_estimate(denoise: object) -> bool:
    """Whether a denoiser's network was made to be handed its last estimate."""
    config = getattr(getattr(denoise, "network", None), "config", None)
    return bool(isinstance(config, dict) and config.get("self_conditioning"))
