"""A classifier as a file for another runtime, which answers what `predict` answers.

Start with making.py, which writes an export, compares it with `predict` and writes its card. graph.py joins the parts
that lie inside the file: decoding.py, resizing.py and the bundle's network; formats.py has a row for each format.
"""

__all__ = ["making"]
