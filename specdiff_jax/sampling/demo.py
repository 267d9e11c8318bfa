"""--mode=demo: a page in the browser that sends requests to a DemoServer and shows their clips."""

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

POLL = 0.25  # seconds between two updates of the page
GUIDANCE = 3.0  # initial value, where the config has none
KINDS = {
    "New": "new",
    "Variation": "variation",
    "Inpainting": "inpaint",
    "Continuation": "continuation",
}
SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")  # no font is fetched
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
    """Serve the page until it is interrupted.

    Raises:
      ValueError: no checkpoint, or a field of the config that the page would not use.
      OSError: the port is taken.
    """
    server = DemoServer(config)
    log(f"demo: http://{config.demo.host}:{config.demo.port} (Ctrl-C ends it)")
    build_page(server).launch(**launch_options(server))


def launch_options(server):
    """Return the arguments of `launch`: the page links to no other host and fetches from none."""
    limits = server.limits
    return {
        "server_name": limits.host,
        "server_port": limits.port,
        "max_file_size": round(limits.max_upload_mb * 1e6),
        "allowed_paths": [str(server.folder)],
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


def build_page(server):
    """Return the gr.Blocks of a DemoServer, with its queue."""
    title = f"specdiff: {server.model.config.name}"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown(describe_model(server.model))
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                fields = add_edit_fields()
                fields |= add_condition_fields(server) | add_sampling_fields(server)
                with gr.Row():
                    stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=80)
                    go = gr.Button("Generate", variant="primary", elem_id="generate", min_width=80)
            with gr.Column(scale=3, min_width=320):
                status = gr.HTML(format_status("Ready."), elem_id="status")
                with gr.Row():
                    cards = [add_card(index) for index in range(server.limits.max_clips)]
        outputs = [status, *(part for parts in cards for part in parts)]

        def send(values):
            filled = {name: values[field] for name, field in fields.items()}
            scalars = {name: filled[name] for name in server.model.vocabulary.scalars}
            request = server.start(filled | {"scalars": scalars})
            yield from stream_progress(request, status, cards)

        options = {"show_progress_on": status, "api_visibility": "private"}
        started = go.click(send, set(fields.values()), outputs, **options)
        stopped = lambda: format_status("Stopped.")
        stop.click(stopped, None, status, cancels=[started], queue=False, api_visibility="private")
    return page.queue(max_size=server.limits.queue)


def describe_model(model):
    """Return the heading of the page: the checkpoint and its conditions, as Markdown."""
    rep, vocabulary = model.rep, model.vocabulary
    conditions = ["prompts"] if vocabulary.text else []
    conditions += [f"{len(vocabulary.labels)} labels"] if vocabulary.labels else []
    conditions += list(vocabulary.scalars)
    return (
        f"# {model.config.name}\nstep {model.step} · {rep.samples / rep.sample_rate:.1f} s at "
        f"{rep.sample_rate} Hz · {', '.join(conditions) or 'unconditional'}"
    )


def add_edit_fields():
    """Return {name: field} of the edits of an upload; each kind shows its own fields."""
    kind = gr.Radio(list(KINDS.items()), value="new", label="What to generate", elem_id="kind")
    with gr.Group(visible=False) as sound:
        upload = gr.Audio(label="Sound file", type="filepath", sources=["upload"], editable=False)
        offset = gr.Number(0, label="start at (s)", minimum=0)
    with gr.Group(visible=False) as variation:
        strength = gr.Slider(0.05, 1, 0.6, step=0.05, label="Strength", info="1 keeps nothing")
    with gr.Group(visible=False) as inpaint, gr.Row():
        ends = {"first": "from (s)", "last": "to (s)", "low": "from (Hz)", "high": "to (Hz)"}
        range_fields = {name: add_number_box(label) for name, label in ends.items()}
    with gr.Group(visible=False) as continuation:
        prefix = gr.Number(1.0, label="keep (s)", minimum=0)
    groups = {"variation": variation, "inpaint": inpaint, "continuation": continuation}

    def show_group(kind):
        own = [gr.update(visible=kind == name) for name in groups]
        return [gr.update(visible=kind != "new"), *own]

    targets = [sound, *groups.values()]
    kind.change(show_group, kind, targets, queue=False, api_visibility="private")
    shared = {"kind": kind, "upload": upload, "offset": offset}
    return shared | {"strength": strength, "prefix": prefix} | range_fields


def add_condition_fields(server):
    """Return {name: field} of the conditions; those that the checkpoint lacks are disabled."""
    vocabulary, s = server.model.vocabulary, server.initial
    enable = lambda available, what: {
        "interactive": bool(available),
        "info": None if available else f"this checkpoint was trained without {what}",
    }
    text, labels = enable(vocabulary.text, "text"), enable(vocabulary.labels, "labels")
    fields = {
        "prompt": gr.Textbox(s.prompt or "", label="Prompt", lines=2, elem_id="prompt", **text),
        "negative_prompt": gr.Textbox(s.negative_prompt or "", label="Negative prompt", **text),
        "labels": gr.Dropdown(
            list(vocabulary.labels), value=[], multiselect=True, label="Labels, together", **labels
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
        fields |= {name: add_number_box(name) for name in vocabulary.scalars}
    conditional = vocabulary.text or vocabulary.labels or vocabulary.scalars
    with gr.Accordion("Guidance", open=False):
        enabled = enable(conditional, "any condition")
        low, high = s.guidance_interval or (0, 1)
        scale, rescale = s.guidance_scale, s.guidance_rescale or 0
        scale = GUIDANCE if scale is None else scale
        slider = lambda most, value, step, label: gr.Slider(
            0, most, value, step=step, label=label, **enabled
        )
        fields |= {
            "guidance_scale": slider(10, scale, 0.1, "Scale"),
            "rescale": slider(1, rescale, 0.05, "Rescale"),
            "interval_low": slider(1, low, 0.01, "From noise level"),
            "interval_high": slider(1, high, 0.01, "To noise level"),
        }
    return fields


def add_sampling_fields(server):
    """Return {name: field} of the number of clips, their length, and the sampler."""
    s, limits = server.initial, server.limits
    with gr.Row():
        fields = {
            "num_samples": gr.Slider(1, limits.max_clips, s.num_samples, step=1, label="Clips"),
            "seed": gr.Number(s.seed, label="Seed", precision=0, minimum=0, min_width=80),
            "seconds": add_number_box("Length (s)", s.seconds),
        }
    with gr.Accordion("Sampler", open=False), gr.Row():
        grids = list(TIME_GRIDS)
        fields |= {
            "sampler": gr.Dropdown(list(SAMPLERS), value=s.sampler, label="Sampler", min_width=120),
            "time_grid": gr.Dropdown(grids, value=s.time_grid, label="Time grid", min_width=120),
            "nfe": gr.Number(s.nfe, label="NFE", precision=0, minimum=1, min_width=80),
        }
    return fields


def add_number_box(label, value=None):
    """Return a field of an optional number: a text, because an empty gr.Number returns 0."""
    return gr.Textbox("" if value is None else str(value), label=label, min_width=80)


def add_card(index):
    """Return (column, picture, player, sidecar) of one clip, hidden until there is one."""
    with gr.Column(visible=False, min_width=320, elem_id=f"clip-{index}") as column:
        picture = gr.Image(show_label=False, container=False, interactive=False, buttons=[])
        player = gr.Audio(show_label=False, interactive=False, buttons=["download"])
        sidecar = gr.DownloadButton("Settings (JSON)", size="sm", elem_id=f"sidecar-{index}")
    return column, picture, player, sidecar


def stream_progress(request, status, cards):
    """Yield the changes of the page while a request runs; closing this stops the request."""
    shown = 0
    yield {status: format_status("Waiting for its turn.")} | {
        parts[0]: gr.update(visible=False) for parts in cards
    }
    try:
        while True:
            request.thread.join(POLL)
            running, count = request.thread.is_alive(), len(request.clips)
            changes, new = {}, zip(cards[shown:count], request.clips[shown:count], strict=True)
            for parts, path in new:
                clip_files = (path.with_suffix(".png"), path, path.with_suffix(".json"))
                changes |= {parts[0]: gr.update(visible=True)}
                changes |= dict(zip(parts[1:], map(str, clip_files), strict=True))
            shown = count
            if not running:
                yield changes | {status: format_result(request)}
                return
            yield changes | {status: format_progress(request)}
    finally:
        request.stopped.set()


def format_progress(request):
    """Return the status of a running request, as HTML."""
    if not request.total:
        return format_status("Waiting for its turn.", request.notes)
    done = min(request.done, request.total)
    bar = f'<progress max="{request.total}" value="{done}"></progress>'
    left = request.seconds_left()
    text = f"{request.done} of {request.total} NFE, {left or 0:.0f} s left"
    if left is None:
        text = "Compiling: only once for such settings."
    return format_status(text, request.notes) + bar


def format_result(request):
    """Return the status of a request that has ended; show an error above the page too."""
    if request.error is not None:
        gr.Warning(html.escape(request.error))
        return format_status(request.error, request.notes, "bad")
    return format_status(f"Done: {len(request.clips)} clips.", request.notes)


def format_status(text, notes=(), kind=""):
    """Return a status line with notes below it, as HTML."""
    more = "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)
    return f'<p class="{kind}">{html.escape(text)}</p>{more}'
