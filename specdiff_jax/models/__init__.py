"""Networks: x_t and t in, one prediction out, independent of audio and of the noise process."""
