"""Words: frozen text encoders, and what they say of a prompt. Knows nothing of sound."""
