"""A small network for points in the plane, on which the lessons try in seconds what a video network takes hours for.

It knows nothing of diffusion: like `unet3d.UNet3D` it is called `network(z, log_snr)` and answers with a tensor like z.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minivdm.guards import BadArgument, check_types, floating, whole


class PointNetwork(nn.Module):
    """A multilayer perceptron on z and on sines and cosines of z and lambda. z: (b, d); log_snr: (b,).

    waves: the frequencies at which it sees z; without them a small network learns sharp features slowly (Tancik et al.
    2020). generator: of the initial weights, so that one seed gives one network.
    """

    def __init__(
        self,
        dimensions: int = 2,
        width: int = 64,
        depth: int = 3,
        waves: tuple[float, ...] = (2.0, 4.0, 8.0),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value in dict(dimensions=dimensions, width=width, depth=depth).items():
            whole(name, value)
        self.dimensions, self.waves = dimensions, waves
        sizes = [dimensions * (1 + 2 * len(waves)) + 16, *[width] * depth, dimensions]
        self.layers = nn.ModuleList(
            nn.utils.skip_init(nn.Linear, n, m)  # type: ignore[arg-type]
            for n, m in zip(sizes[:-1], sizes[1:], strict=True)  # skipped: it would draw from the global state
        )
        for layer in self.layers:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        """A tensor like z, (b, d)."""
        if floating("z", z).ndim != 2 or z.shape[1] != self.dimensions:
            raise BadArgument(f"z: expected points of shape (b, {self.dimensions}), got {tuple(z.shape)}")
        if floating("log_snr", log_snr).ndim > 1 or log_snr.numel() not in (1, len(z)):
            raise BadArgument(f"log_snr: expected shape ({len(z)},), got {tuple(log_snr.shape)}")
        dtype = next(self.parameters()).dtype
        z, log_snr = z.to(dtype), log_snr.to(dtype).expand(len(z))
        # lambda / 20 and its multiples: slow enough that lambda = -20 and 20 still differ.
        angles = [log_snr[:, None] * torch.arange(1, 9, device=z.device) / 20, *(w * z for w in self.waves)]
        h = torch.cat([z, *(f(angle) for angle in angles for f in (torch.sin, torch.cos))], dim=1)
        for layer in self.layers[:-1]:
            h = nn.functional.silu(layer(h))
        return self.layers[-1](h)


check_types(globals())
