"""A page as a reader sees it: its texts, tables and elements, found by the parser of Python."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """tables: by caption, a list of rows of texts. ids, texts: of all elements. tags: (name, attributes)."""

    def __init__(self, path):
        super().__init__()
        self.tables, self.tags, self.texts = {}, [], []
        self._open, self._rows, self._cell = [], [], ""
        self.feed(path.read_text(encoding="utf-8"))
        assert not self._open, self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._rows = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th", "caption"):
            self._cell = ""

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag in ("td", "th"):
            self._rows[-1].append(self._cell.strip())
        if tag == "caption":
            self.tables[self._cell.strip()] = self._rows

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("style", "script"):
            self.texts.append(data)
            self._cell += data

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def rows(self, caption):
        """Of the table whose caption begins so: by the text of their first cell, the others by heading."""
        (table,) = (rows for name, rows in self.tables.items() if name.startswith(caption))
        headings, *rows = table
        return {row[0]: dict(zip(headings[1:], row[1:], strict=True)) for row in rows}

    def count(self, tag):
        return sum(name == tag for name, _ in self.tags)
