"""Networks: x_t and t in, one prediction out. Know nothing of sound or of the noise process."""
