"""A page as a browser sees it, for the tests of reports."""

import base64
from html.parser import HTMLParser


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.sources, self.text = [], [], [], ""
        self.tables = []  # of each: (attributes of the row, [(attributes, text) of its cells])
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [attrs[name] for name in ("src", "href") if name in attrs]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append((attrs, []))
        elif tag in ("td", "th"):
            self.tables[-1][-1][1].append([attrs, ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][1][-1][1] += data

    def words(self, table):
        return [[text for _, text in line] for _, line in self.tables[table]]


def decoded(source):
    kind, _, data = source.partition(";base64,")
    return kind, base64.b64decode(data, validate=True)
