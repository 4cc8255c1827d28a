"""Take frostnet's weights out of the trained classifier: `python export.py`, run by `dvc repro` in this folder.

`make frostnet` runs the pipeline and copies the result to where the package ships it.
"""

from __future__ import annotations

from pathlib import Path

from frostline import paths
from frostline.models import bundles, frostnet

bundle = bundles.load(paths.BUNDLE)
frostnet.save_weights(bundle.model.get_layer("frostnet"), Path("models/frostnet.npz"))
