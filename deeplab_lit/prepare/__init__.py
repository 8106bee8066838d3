"""Data sets from their official archives: download, unpack, convert, check."""
