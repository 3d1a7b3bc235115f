"""The diffusion core: noise levels, denoiser, loss, samplers and masks, on tensors only."""
