"""Labels "kind:value", or plain words, by the names that people write."""

import difflib


def find_label(name, labels, which="of the checkpoint"):
    """Return the label of a name: itself, or the only one that ends in ':' and it.

    Raises:
      ValueError: there is none, or several; the message names close ones.
    """
    if name in labels:
        return name
    matches = [label for label in labels if label.split(":", 1)[-1] == name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ValueError(f"label {name!r} is one of {', '.join(matches)}; write which")
    by_name = {label.split(":", 1)[-1]: label for label in labels}
    by_name |= {label: label for label in labels}
    close = difflib.get_close_matches(name, by_name, n=3, cutoff=0.5)
    hint = f"; did you mean {', '.join(by_name[word] for word in close)}?" if close else ""
    raise ValueError(f"label {name!r} is not one of the {len(labels)} {which}{hint}")
