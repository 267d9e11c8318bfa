"""Self-contained HTML pages from the templates of this package; every value is escaped."""

import dataclasses
import functools
import math

from specdiff_jax.reports.run_files import encode_data_uri
from specdiff_jax.runtime.files import write_bytes

DASH = "\N{EN DASH}"
BASELINES = {  # health.NAMES, short enough for a chart
    "constant": "best constant",
    "band_wiener": "per-band Wiener",
    "linear_frame": "linear, frame",
    "linear_patch": "linear, patch",
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A number of a table.

    Attributes:
      text: the number as it is printed.
      interval: the ends of its interval, in small print.
      tone: CSS class, such as "good" or "poor".
    """

    text: str
    interval: str = ""
    tone: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table: a name, then cells (`Cell` or plain text).

    Attributes:
      meta: small print behind the name; flag: a warning below it; strong: whether it stands out.
    """

    name: str
    cells: tuple
    meta: str = ""
    flag: str = ""
    strong: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table with a line above it; `heads` names all columns, the first one included."""

    note: str
    heads: tuple
    rows: list


@dataclasses.dataclass(frozen=True)
class Card:
    """A clip or song on a page.

    Attributes:
      picture, sound: `data:` URIs, empty where there is none.
      missing: lines on what is not there.
      lines: (CSS class, text) of each paragraph below the heading.
      chips: short labels below the paragraphs.
    """

    heading: str
    picture: str = ""
    sound: str = ""
    missing: tuple = ()
    lines: tuple = ()
    chips: tuple = ()


@functools.cache
def load_environment():
    """Return the Jinja environment: autoescape is on, and an undefined name is an error."""
    import jinja2  # slow to import

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("specdiff_jax.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return environment


def render(template, **values):
    """Return the page of a template, a file name in templates/, with its values."""
    return load_environment().get_template(template).render(values)


def render_macro(name, *values):
    """Return the HTML of one macro of macros.html."""
    return str(getattr(load_environment().get_template("macros.html").module, name)(*values))


def read_template(name):
    """Return the source of a file in templates/."""
    environment = load_environment()
    return environment.loader.get_source(environment, name)[0]


def write_page(path, page):
    """Write a page whole or not at all and return its path."""
    return write_bytes(path, page.encode("utf-8", errors="replace"))


def format_number(value, places=3):
    """Return a number to `places` decimals or three digits; a dash for None and NaN."""
    if value is None or not math.isfinite(value):
        return DASH
    decimal = value == 0 or 10 ** (1 - places) <= abs(value) < 1e5
    return (f"{value:.{places}f}" if decimal else f"{value:.3g}").replace("-", "\N{MINUS SIGN}")


def load_card(folder, stem, kept, heading, lines=(), chips=()):
    """Return the Card of a clip, its picture and sound read where (folder, stem) is in `kept`."""
    picture = sound = ""
    missing = []
    if (folder, stem) in kept:
        picture, sound = (encode_data_uri(folder / (stem + suffix)) for suffix in (".png", ".wav"))
        media = ((".png", picture), (".wav", sound))
        missing = [f"{stem}{suffix} is missing." for suffix, uri in media if not uri]
    return Card(heading, picture, sound, tuple(missing), tuple(lines), tuple(chips))
