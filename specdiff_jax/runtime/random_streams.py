"""Random streams: the number that each use folds into a key, so that no two draw the same.

They begin at 2^30, far above the indices that `jax.random.split` counts with.
"""

AUGMENTATION = 2**30  # of a training crop
CONDITION_DROPOUT = 2**30 + 1
CAPTION = 2**30 + 2  # which caption of a song is used
HEAD_INIT = 2**30 + 10
BACKBONE_NOISE = 2**30 + 11  # eps in the x_t that a backbone gets under a head
TAG_MIX_UP = 2**30 + 12
SPEC_AUGMENT = 2**30 + 13
TEXT_HEAD_INIT = 2**30 + 14
