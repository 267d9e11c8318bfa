"""Sound: files, the STFT, and what the network sees of it. Knows nothing of diffusion."""
