"""--mode=demo: a page in the browser that takes orders for clips; studio.py makes them."""

import html
import os

from specdiff_jax.diffusion.samplers import SAMPLERS
from specdiff_jax.diffusion.time_grids import TIME_GRIDS
from specdiff_jax.runtime.logs import log
from specdiff_jax.sampling.demo_server import DemoServer

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
try:
    import gradio as gr
except ImportError as error:
    raise ValueError("--mode=demo needs gradio; pip install -e '.[demo]'") from error

POLL = 0.25  # seconds between two looks at a job
GUIDANCE = 3.0  # to begin with, where the config names none
KINDS = {
    "New": "new",
    "Variation": "variation",
    "Inpainting": "inpaint",
    "Continuation": "continuation",
}
SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")  # nothing is fetched
MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")
CSS = """
.gradio-container {max-width: 1280px !important; margin: auto !important}
#status {min-height: 3.5em}
#status p {margin: 0 0 .4em}
#status progress {width: 100%; height: .5em; accent-color: var(--color-accent)}
#status .bad {color: #b91c1c; font-weight: 600}
.dark #status .bad {color: #fca5a5}
#status .note {opacity: .75}
"""


def run(config):
    """Serves the page until it is interrupted.

    Raises:
      ValueError: no checkpoint, or a field of the config that the page would not use.
      OSError: the port is taken.
    """
    studio = DemoServer(config)
    log(f"demo: http://{config.demo.host}:{config.demo.port} (Ctrl-C ends it)")
    build_page(studio).launch(**launch_options(studio))


def launch_options(studio):
    """Arguments of `launch`: no link to the outside, and nothing fetched from there."""
    limits = studio.limits
    return {
        "server_name": limits.host,
        "server_port": limits.port,
        "max_file_size": round(limits.max_upload_mb * 1e6),
        "allowed_paths": [str(studio.folder)],
        "share": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "enable_monitoring": False,
        "run_history": False,
        "footer_links": [],
        "quiet": True,
        "theme": gr.themes.Soft(font=SANS, font_mono=MONO),
        "css": CSS,
    }


def build_page(studio):
    """The gr.Blocks of a Studio, with its queue."""
    title = f"specdiff: {studio.trained.config.name}"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(3600, 86400)) as made:
        gr.Markdown(describe_model(studio.trained))
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                fields = (
                    add_edit_fields() | add_condition_fields(studio) | add_sampling_fields(studio)
                )
                with gr.Row():
                    stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=80)
                    go = gr.Button("Make", variant="primary", elem_id="make", min_width=80)
            with gr.Column(scale=3, min_width=320):
                status = gr.HTML(format_status("Ready."), elem_id="status")
                with gr.Row():
                    cards = [add_card(index) for index in range(studio.limits.max_clips)]
        shown = [status, *(part for parts in cards for part in parts)]

        def order(values):
            told = {name: values[field] for name, field in fields.items()}
            numbers = {name: told[name] for name in studio.trained.vocabulary.scalars}
            yield from stream_progress(studio.start(told | {"scalars": numbers}), status, cards)

        options = {"show_progress_on": status, "api_visibility": "private"}
        started = go.click(order, set(fields.values()), shown, **options)
        stopped = lambda: format_status("Stopped.")
        stop.click(stopped, None, status, cancels=[started], queue=False, api_visibility="private")
    return made.queue(max_size=studio.limits.queue)


def describe_model(trained):
    """What the checkpoint is and can be asked for."""
    rep, known = trained.rep, trained.vocabulary
    takes = ["prompts"] if known.text else []
    takes += [f"{len(known.labels)} labels"] if known.labels else []
    takes += list(known.scalars)
    return (
        f"# {trained.config.name}\nstep {trained.step} · {rep.samples / rep.sample_rate:.1f} s at "
        f"{rep.sample_rate} Hz · takes {', '.join(takes) or 'no wishes: it was trained without'}"
    )


def add_edit_fields():
    """{name: field} of what is done to an upload; each kind shows its own."""
    kind = gr.Radio(list(KINDS.items()), value="new", label="What to make", elem_id="kind")
    with gr.Group(visible=False) as sound:
        upload = gr.Audio(label="Sound file", type="filepath", sources=["upload"], editable=False)
        offset = gr.Number(0, label="begin at (s)", minimum=0)
    with gr.Group(visible=False) as variation:
        strength = gr.Slider(0.05, 1, 0.6, step=0.05, label="Strength", info="1 keeps nothing")
    with gr.Group(visible=False) as inpaint, gr.Row():
        ends = {"first": "from (s)", "last": "to (s)", "low": "from (Hz)", "high": "to (Hz)"}
        free = {name: add_number_box(label) for name, label in ends.items()}
    with gr.Group(visible=False) as continuation:
        prefix = gr.Number(1.0, label="keep (s)", minimum=0)
    groups = {"variation": variation, "inpaint": inpaint, "continuation": continuation}

    def shown(kind):
        own = [gr.update(visible=kind == name) for name in groups]
        return [gr.update(visible=kind != "new"), *own]

    kind.change(shown, kind, [sound, *groups.values()], queue=False, api_visibility="private")
    fixed = {"kind": kind, "upload": upload, "offset": offset}
    return fixed | {"strength": strength, "prefix": prefix} | free


def add_condition_fields(studio):
    """{name: field} of what is asked for; what the checkpoint does not know is off, and says so."""
    known, s = studio.trained.vocabulary, studio.begin
    off = lambda there, what: {
        "interactive": bool(there),
        "info": None if there else f"this checkpoint was trained without {what}",
    }
    text, labels = off(known.text, "text"), off(known.labels, "labels")
    fields = {
        "prompt": gr.Textbox(s.prompt or "", label="Prompt", lines=2, elem_id="prompt", **text),
        "negative_prompt": gr.Textbox(s.negative or "", label="Negative prompt", **text),
        "labels": gr.Dropdown(
            list(known.labels), value=[], multiselect=True, label="Labels, together", **labels
        ),
        "algebra": gr.Textbox(
            s.labels or "",
            label="Label algebra",
            placeholder="+flute -drums 1.5*fast",
            elem_id="algebra",
            **labels,
        ),
    }
    with gr.Row():
        fields |= {name: add_number_box(name) for name in known.scalars}
    anything = known.text or known.labels or known.scalars
    with gr.Accordion("Guidance", open=False):
        can = off(anything, "anything to ask for")
        low, high = s.guidance_interval or (0, 1)
        strength = GUIDANCE if s.guidance is None else s.guidance
        fields |= {
            "guidance_scale": gr.Slider(0, 10, strength, step=0.1, label="Weight", **can),
            "rescale": gr.Slider(0, 1, s.guidance_rescale or 0, step=0.05, label="Rescale", **can),
            "interval_low": gr.Slider(0, 1, low, step=0.01, label="From noise level", **can),
            "interval_high": gr.Slider(0, 1, high, step=0.01, label="To noise level", **can),
        }
    return fields


def add_sampling_fields(studio):
    """{name: field} of how it is made."""
    s, limits = studio.begin, studio.limits
    with gr.Row():
        fields = {
            "num_samples": gr.Slider(1, limits.max_clips, s.count, step=1, label="Clips"),
            "seed": gr.Number(s.seed, label="Seed", precision=0, minimum=0, min_width=80),
            "seconds": add_number_box("Length (s)", s.seconds),
        }
    with gr.Accordion("Sampler", open=False), gr.Row():
        fields |= {
            "sampler": gr.Dropdown(list(SAMPLERS), value=s.sampler, label="Sampler", min_width=120),
            "time_grid": gr.Dropdown(list(TIME_GRIDS), value=s.grid, label="Grid", min_width=120),
            "nfe": gr.Number(s.steps, label="Steps", precision=0, minimum=1, min_width=80),
        }
    return fields


def add_number_box(label, value=None):
    """A number that may be left out: a text, because an empty gr.Number comes back as 0."""
    return gr.Textbox("" if value is None else str(value), label=label, min_width=80)


def add_card(index):
    """(column, picture, player, sidecar) of one clip, hidden until there is one."""
    with gr.Column(visible=False, min_width=320, elem_id=f"clip-{index}") as column:
        picture = gr.Image(show_label=False, container=False, interactive=False, buttons=[])
        player = gr.Audio(show_label=False, interactive=False, buttons=["download"])
        sidecar = gr.DownloadButton("Settings (JSON)", size="sm", elem_id=f"sidecar-{index}")
    return column, picture, player, sidecar


def stream_progress(job, status, cards):
    """Yields what to change on the page while a job runs; whoever closes this stops the job."""
    done = 0
    yield {status: format_status("Waiting for its turn.")} | {
        parts[0]: gr.update(visible=False) for parts in cards
    }
    try:
        while True:
            job.thread.join(POLL)
            running, found = job.thread.is_alive(), len(job.clips)
            changes = {}
            for parts, path in zip(cards[done:found], job.clips[done:found], strict=True):
                beside = (path.with_suffix(".png"), path, path.with_suffix(".json"))
                changes |= {parts[0]: gr.update(visible=True)}
                changes |= {part: str(file) for part, file in zip(parts[1:], beside, strict=True)}
            done = found
            if not running:
                yield changes | {status: format_result(job)}
                return
            yield changes | {status: format_progress(job)}
    finally:
        job.stopped.set()


def format_progress(job):
    """The status of a job that runs."""
    if not job.total:
        return format_status("Waiting for its turn.", job.notes)
    bar = f'<progress max="{job.total}" value="{min(job.done, job.total)}"></progress>'
    left = job.seconds_left()
    if left is None:
        return format_status("Compiling: only once for such settings.", job.notes) + bar
    return (
        format_status(f"{job.done} of {job.total} evaluations, {left:.0f} s left", job.notes) + bar
    )


def format_result(job):
    """The status of a job that has ended; an error is also shown above the page."""
    if job.error is not None:
        gr.Warning(html.escape(job.error))
        return format_status(job.error, job.notes, "bad")
    return format_status(f"Done: {len(job.clips)} clips.", job.notes)


def format_status(text, notes=(), kind=""):
    """A status line and notes below it, as HTML."""
    more = "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)
    return f'<p class="{kind}">{html.escape(text)}</p>{more}'
