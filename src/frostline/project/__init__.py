"""A project of one's own: what `frostline init` writes, and how it picks the settings for somebody's images.

Start with creating.py, which says the steps. template.py has the files, most of them links to this repository's own;
appearance.py looks at the images, choosing.py picks by what it saw, updating.py brings an older project up to date.
It knows no Keras, so that all of it takes seconds.
"""

__all__ = ["creating", "json_schema", "requirements", "template", "updating", "wishes"]
