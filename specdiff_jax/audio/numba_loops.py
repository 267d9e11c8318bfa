"""Inner loops over samples, compiled by numba: numpy passes over memory several times for each.

The first call of a fresh installation compiles for about a second; the result is kept on disk.
"""

import functools

import numpy as np


def compile_loop(function):
    """`function` by numba, which is imported at the first call: that takes a third of a second."""

    @functools.cache
    def fast():
        import numba

        # Sums may be taken in any order, so that they are taken many at a time.
        math = {"reassoc", "nsz", "contract"}
        return numba.njit(cache=True, error_model="numpy", fastmath=math)(function)

    return functools.wraps(function)(lambda *args: fast()(*args))


@compile_loop
def add_rows(line, total):
    """Adds the rows of `line`, each as long as `total`, to it; the last may be shorter.

    Args:
      line: [N] float32. total: [width] float64, changed in place.

    Returns:
      The sum of squares of `line`, in float64 like the others.
    """
    width, squares = len(total), 0.0
    for first in range(0, len(line), width):
        row = line[first : first + width]
        for place in range(len(row)):
            total[place] += np.float64(row[place])
        for place in range(len(row)):
            squares += np.float64(row[place]) * np.float64(row[place])
    return squares


@compile_loop
def average_pairs(line):
    """[2 N] float32 -> [N]"""
    means = np.empty(len(line) // 2, np.float32)
    for place in range(len(means)):
        means[place] = (line[2 * place] + line[2 * place + 1]) * np.float32(0.5)
    return means


@compile_loop
def round_to_int16(wave):
    """[N] float32, full scale at one -> int16, as `files.to_int16` has it."""
    pcm = np.empty(len(wave), np.int16)
    for place in range(len(wave)):
        sample = np.rint(wave[place] * np.float32(32768))
        pcm[place] = np.int16(min(max(sample, np.float32(-32768)), np.float32(32767)))
    return pcm


@compile_loop
def resample(padded, taps, rate, new_rate):
    """Samples at another rate, each a weighted sum of those around its place.

    Args:
      padded: [L - 1 + N] float32 or int16 at `rate` Hz.
      taps: [phases, L] float32: the weights of the L samples from a place on, for places between
        two samples.

    Returns:
      [N * new_rate // rate] float32.
    """
    phases, size = taps.shape
    output = np.empty((len(padded) - size + 1) * new_rate // rate, np.float32)
    step, more, fine = rate // new_rate, rate % new_rate, phases / new_rate
    whole, rest = 0, 0  # the place is whole + rest / new_rate; a division each would be slow
    for place in range(len(output)):
        phase, total = int(rest * fine), np.float32(0)
        for tap in range(size):  # no slices, unsigned: numba would look for negative places
            total += np.float32(padded[np.uint64(whole + tap)]) * taps[phase, tap]
        output[place] = total
        whole, rest = whole + step, rest + more
        if rest >= new_rate:
            whole, rest = whole + 1, rest - new_rate
    return output
