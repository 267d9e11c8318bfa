"""Config sections as keyword arguments, so that no option is silently ignored.

None means unset. A set field that the chosen function does not take is an error, and so is a
choice that does not exist.
"""

import difflib
import functools
import inspect


def choose(options, field, value):
    """Return options[value], or raise a ValueError with the field, the choices and the nearest."""
    if value in options:
        return options[value]
    near = difflib.get_close_matches(str(value), options, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{field}={value!r} is not one of {', '.join(options)}{hint}")


def set_fields(section, *excluded):
    """Return the fields of a section that are set, except those named."""
    return {k: v for k, v in section.items() if v is not None and k not in excluded}


def prefixed(section, prefix):
    """Return {name: value} of the set fields called prefix + name."""
    fields = {k: v for k, v in section.items() if k.startswith(prefix) and v is not None}
    return {name.removeprefix(prefix): value for name, value in fields.items()}


def refuse_unused(path, fields, used, chosen):
    """Raise ValueError where the chosen function would ignore a set field.

    `path` goes before a field's name in the message, as "schedule." or "diffusion.loss_weighting_".
    """
    for name in sorted(set(fields) - set(used)):
        raise ValueError(f"{path}{name}={fields[name]!r} is not used by {chosen}; set it to None")


def call(path, maker, fields, chosen):
    """Return maker(**fields); refuse fields that it does not take and name those it lacks."""
    parameters = inspect.signature(maker).parameters
    refuse_unused(path, fields, parameters, chosen)
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in fields:
            raise ValueError(f"{path}{name} must be set for {chosen}")
    return maker(**fields)


def bind(path, function, fields, chosen):
    """Return `function`, or None, with its optional arguments bound; refuse all other fields."""
    parameters = inspect.signature(function).parameters.values() if function else ()
    optional = [p.name for p in parameters if p.default is not p.empty]
    refuse_unused(path, fields, optional, chosen)
    return functools.partial(function, **fields) if fields else function


def must_divide(part_name, part, whole_name, whole):
    """Raise ValueError unless `part` divides `whole`."""
    if part < 1 or whole % part:
        raise ValueError(f"{part_name}={part} must divide {whole_name}={whole}")


def json_equal(value):
    """Return a value as JSON gives it back: tuples become lists."""
    return list(value) if isinstance(value, tuple) else value
