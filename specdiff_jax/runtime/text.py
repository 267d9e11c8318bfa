"""Foreign text, such as messages of libraries and names from files, on one line."""


def one_line(value):
    """Return str(value) on one line: each run of white space becomes one space."""
    return " ".join(str(value).split())


def first_line(error):
    """Return the first line of an exception's message, its class name where there is none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def mark_unprintable(text):
    """Return a text with U+FFFD for each character that a terminal cannot print."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
