"""From whatever a person has (folders, tables, archives, cards) to checked, deduplicated and split images.

It may use data, and knows no Keras. Start with sources.py; decoding.py reads all images over all cores, checks.py
says what is wrong with them, splits.py who is trained on.
"""

__all__ = ["checks", "decoding", "folders", "gathering", "report", "sources", "splits"]
