"""Labels "kind:value", or plain words, by the names that people write."""

import difflib


def find_label(name, labels, which="that were learned"):
    """The label of a name: itself, or the only one that ends in ':' and it.

    Raises:
      ValueError: there is none, or several; says which are near.
    """
    if name in labels:
        return name
    ends = [label for label in labels if label.split(":", 1)[-1] == name]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ValueError(f"label {name!r} is one of {', '.join(ends)}; write which")
    plain = {label.split(":", 1)[-1]: label for label in labels} | {
        label: label for label in labels
    }
    near = difflib.get_close_matches(name, plain, n=3, cutoff=0.5)
    hint = f"; did you mean {', '.join(plain[word] for word in near)}?" if near else ""
    raise ValueError(f"label {name!r} is not one of the {len(labels)} {which}{hint}")
