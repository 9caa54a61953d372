"""How a clip at another size enters a network that denoises: by channel, and its noise level by the embedding.

Ho et al. 2021, "Cascaded diffusion models", section 4; Ho et al. 2022, "Imagen Video", section 2.4. The clip is resized
to the size of the latent beforehand (`systems.imagen_video.resized`), and may bring a mask of its known frames along
as one more channel (Singer et al. 2022, "Make-A-Video", section 3.3).
"""

from __future__ import annotations

from torch import Tensor, nn

from minivdm.guards import BadArgument, check_types, floating
from minivdm.networks.layers import waves, zero


class LowResolution(nn.Module):
    """The clip that a stage goes on from. All of it starts at zero: weights trained without it go on as they were.

    Args:
        channels: of the condition, one more than the clip's where it brings a mask along.
        width: of the network's finest level. patch: as for the network. embedding: width of its embedding.
    """

    def __init__(self, channels: int, width: int, patch: int, embedding: int):
        super().__init__()
        self.channels = channels
        self.stem = zero(nn.Conv2d(channels * patch**2, width, 3, padding=1, bias=False))
        self.level = nn.Sequential(nn.Linear(embedding, embedding), nn.SiLU(), zero(nn.Linear(embedding, embedding)))
        self.rate = zero(nn.Linear(embedding, embedding))

    def embed(self, log_snr: Tensor | None, rate: Tensor | None, batch: int) -> Tensor | None:
        """What is added to the embedding, (b, e): of the condition's log-SNR (b,), and of the frame rate (b,)."""
        total, dtype, width = None, self.stem.weight.dtype, self.rate.in_features
        for name, value, layer, highest in (("low_log_snr", log_snr, self.level, 4.0), ("rate", rate, self.rate, 1.0)):
            if value is None:
                continue
            if floating(name, value).shape not in ((1,), (batch,)):
                raise BadArgument(f"{name}: expected shape ({batch},), got {tuple(value.shape)}")
            more = layer(waves(value.expand(batch), width, highest).to(dtype))
            total = more if total is None else total + more
        return total


def embed_low(
    layer: LowResolution | None, low: Tensor | None, log_snr: Tensor | None, rate: Tensor | None, z: Tensor
) -> Tensor | None:
    """What a condition adds to the embedding of each sample; refuses one that the network or the latent z has no room
    for."""
    if layer is None:
        if any(value is not None for value in (low, log_snr, rate)):
            raise BadArgument("low, low_log_snr, rate: expected none for a network built with low=0, got some")
        return None
    b, _, *size = z.shape
    if low is not None and floating("low", low).shape != (b, layer.channels, *size):
        raise BadArgument(f"low: expected shape {(b, layer.channels, *size)}, got {tuple(low.shape)}")
    return layer.embed(log_snr, rate, b)


check_types(globals())
