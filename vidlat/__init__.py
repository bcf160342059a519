"""Encode medical video once with a frozen MAISI VAE; train diffusion models from the latents."""

__version__ = "0.1.0"
