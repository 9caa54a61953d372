"""MiniVDM: video diffusion from scratch, small enough to read whole.

One idea carries the package: a denoiser is a function ``(z, t) -> x_hat``. Guidance turns a denoiser into a
denoiser; a sampler step turns ``(denoiser, z, t, s)`` into ``z_s``; a closed-form world provides exact denoisers
to hold both against the truth.
"""

__version__ = "0.1.0"
