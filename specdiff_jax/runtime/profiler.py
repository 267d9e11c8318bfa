"""A trace of some training steps, to open in TensorBoard or at ui.perfetto.dev."""

import contextlib
import pathlib

import jax

from specdiff_jax.runtime.logs import log

WARM = 2  # dispatches before it: the first compiles


class Profile:
    """Traces config.profile_steps steps once the first dispatches are behind.

    Raises:
      ValueError: the run has too few dispatches left to trace any.
    """

    def __init__(self, config, dispatches):
        self.folder = pathlib.Path(config.workdir) / "profile"
        self.left, self.count, self.tracing = config.profile_steps or 0, 0, False
        self.mark = contextlib.ExitStack()
        if self.left and dispatches <= WARM:
            raise ValueError(
                f"profile_steps={self.left}: only {dispatches} dispatches are left and the first "
                f"{WARM} are not traced; raise train.num_steps or unset it"
            )

    def before(self, first, steps, state):
        """Call it before each dispatch: of `steps` from `first` on, with the state it takes."""
        self.mark.close()
        if self.tracing and self.left <= 0:
            self.close(state)
        elif self.left > 0 and self.count == WARM:
            jax.block_until_ready(state)  # what was dispatched earlier is not traced
            jax.profiler.start_trace(self.folder, create_perfetto_trace=True)
            self.tracing = True
        if self.tracing:
            self.left -= steps
            # TensorBoard's step: from one dispatch to the next, for a dispatch does not wait.
            step = jax.profiler.StepTraceAnnotation("train", step_num=first)
            self.mark.enter_context(step)
        self.count += 1

    def close(self, state=None):
        """Ends a trace that is under way; call it after the last dispatch."""
        self.mark.close()
        if not self.tracing:
            return
        jax.block_until_ready(state)
        jax.profiler.stop_trace()
        self.tracing = False
        log(f"profile: {self.folder} (tensorboard --logdir, or its .json.gz at ui.perfetto.dev)")
