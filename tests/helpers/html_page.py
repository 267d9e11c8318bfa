"""A written HTML page as tags, table rows and text."""

import html.parser


class Page(html.parser.HTMLParser):
    """A page as a flat list: tags = [(name, attributes)], rows = table rows, words = all text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.rows, self.words, self.where = [], [], [], []
        self.feed(path.read_text("utf-8"))
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.where.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.where[-1:] != ["style"]:
            self.words.append(data)
        if self.rows and {"td", "th"} & set(self.where):
            self.rows[-1][-1] += data

    def handle_endtag(self, tag):
        while self.where and self.where.pop() != tag:
            pass

    def named(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]

    def text(self):
        return " ".join("".join(self.words).split())
