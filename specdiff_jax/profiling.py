"""A trace of some training steps, to open in TensorBoard or at ui.perfetto.dev."""

import contextlib
import pathlib

import jax

from specdiff_jax.logs import say

WARM = 2  # dispatches before it: the first compiles


class Profile:
    """Traces config.profile_steps steps once the first dispatches are behind.

    Raises:
      ValueError: the run has too few dispatches left to trace any.
    """

    def __init__(self, config, dispatches):
        self.folder = pathlib.Path(config.workdir) / "profile"
        self.left, self.count, self.tracing = config.profile_steps or 0, 0, False
        if self.left and dispatches <= WARM:
            raise ValueError(
                f"profile_steps={self.left}: only {dispatches} dispatches are left and the first "
                f"{WARM} are not traced; raise train.num_steps or unset it"
            )

    def dispatch(self, first, steps, state):
        """A context around each dispatch: of `steps` from `first` on, with the state it takes."""
        if self.tracing and self.left <= 0:
            self.close(state)
        elif self.left > 0 and self.count == WARM:
            jax.block_until_ready(state)  # what was dispatched earlier is not traced
            jax.profiler.start_trace(self.folder, create_perfetto_trace=True)
            self.tracing = True
        if self.tracing:
            self.left -= steps
        self.count += 1
        # What TensorBoard takes for one step is one dispatch.
        annotation = jax.profiler.StepTraceAnnotation("train", step_num=first)
        return annotation if self.tracing else contextlib.nullcontext()

    def close(self, state=None):
        """Ends a trace that is under way; call it after the last dispatch."""
        if not self.tracing:
            return
        jax.block_until_ready(state)
        jax.profiler.stop_trace()
        self.tracing = False
        say(f"profile: {self.folder} (tensorboard --logdir, or its .json.gz at ui.perfetto.dev)")
