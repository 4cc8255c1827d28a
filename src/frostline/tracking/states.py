"""A state of the project, which dvc.lock describes, and the run in MLflow that records it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from frostline import paths
from frostline.core import atomic, digest
from frostline.core.history import HistoryRow
from frostline.core.masking import masked
from frostline.data import data_report
from frostline.errors import DataError, StateError
from frostline.evaluation import scores
from frostline.models import account
from frostline.tracking import dvc_files, lineage, run_log
from frostline.tracking.run_log import flat
from frostline.tracking.tracker import Tracker

STATE_FILES = (paths.PARAMS, Path("dvc.yaml"), paths.DVC_LOCK)


@dataclass(frozen=True)
class RecordedState:
    """What the run of a state was given, and the tags of the state's lineage."""

    added: tuple[str, ...]
    tags: dict[str, str]

    def __str__(self) -> str:
        return f"its run was given its {', '.join(self.added)}" if self.added else "its run has everything already"


def record(tracker: Tracker, folder: Path, tags: Mapping[str, str]) -> RecordedState:
    """Give the run of a state what it lacks. folder: of the state's files; tags: of its lineage."""
    bundle = folder / paths.BUNDLE
    try:
        of_bundle = account.read(bundle)
        made_from, classes = of_bundle.made_from, len(of_bundle.layout.classes)
        test_scores = scores.read(folder / paths.METRICS)
    except DataError as error:
        raise DataError(f"{bundle}: no trained and evaluated classifier ({error}); run `dvc repro`") from error
    stages = lineage.stages(folder / paths.DVC_LOCK)
    settings = flat({key: value for stage in stages.values() for key, value in stage.params.items()})
    added = []
    source = settings.get("data.source", "unknown")
    name = run_log.name_of(made_from, source, tags.get(lineage.EXPERIMENT))
    with tracker.result(digest.of_folder(bundle), name) as log:
        if not log.state.has_model:
            added.append("training")
            run_log.started(
                log,
                {key: value for key, value in settings.items() if not key.startswith("evaluate.")},
                lineage.inputs(folder / paths.DVC_LOCK, [paths.PREPARED, paths.AUGMENTED]),
                {},
            )
            images = data_report.read(folder / paths.DATA_REPORT).images
            log.dataset(source, made_from.data.train, "training", run_log.counts(images["train"], classes))
            log.dataset(source, made_from.data.val, "validation", run_log.counts(images["val"], classes))
            history = pd.read_csv(folder / paths.HISTORY).to_dict("records")
            log.epochs([HistoryRow(**row) for row in history])
            run_log.trained(
                log,
                made_from,
                bundle,
                [folder / path for path in (paths.HISTORY, paths.DATA_REPORT, paths.CONTACT_SHEET)],
            )
        known = run_log.short(log.state.tags.get(run_log.TEST_DIGEST, ""))
        if known != run_log.short(test_scores.test_digest):
            added.append("evaluation")
            run_log.evaluated(log, source, classes, test_scores, folder)
        tags = lineage.with_experiment(tags, folder / paths.DVC_LOCK, log.state.tags.get(lineage.EXPERIMENT))
        if _is_new(tags, log.state.tags):
            added.append("lineage")
            place = run_log.STATE.format(run_log.short(tags[lineage.LOCK]))
            with _masked(folder) as files:
                log.files(files, place)
            log.tags(tags)
    return RecordedState(tuple(added), dict(tags))


def _is_new(tags: Mapping[str, str], known: Mapping[str, str]) -> bool:
    """Whether a run lacks a state, or knows it only as one that was not committed."""
    now_clean = known.get(lineage.DIRTY) == "true" and tags.get(lineage.DIRTY) == "false"
    return known.get(lineage.LOCK) != tags[lineage.LOCK] or now_clean


@contextmanager
def _masked(folder: Path) -> Iterator[list[Path]]:
    """The files of the state. A file with a password in a URL is a masked copy, which is removed after the block."""
    with atomic.scratch(paths.state() / "masked") as scratch:
        files = []
        for path in (folder / name for name in STATE_FILES):
            text = path.read_text(encoding="utf-8")
            if masked(text) != text:
                path = scratch / path.name
                path.write_text(masked(text), encoding="utf-8")
            files.append(path)
        yield files


@contextmanager
def checked_out(revision: str) -> Iterator[tuple[Path, str, bool]]:
    """The files of a revision in a temporary folder, its commit, and whether it is the name of a DVC experiment."""
    from dvc.exceptions import DvcException
    from dvc.scm import SCMError

    needed = [*STATE_FILES, paths.BUNDLE, paths.REPORTS]
    with atomic.scratch(paths.state() / "revision") as scratch:
        try:
            files, place = dvc_files.at(revision)
            commit = files.repo.get_rev()
            for path in needed:
                target = scratch / path
                target.parent.mkdir(parents=True, exist_ok=True)
                source = f"{place}{path.as_posix()}"
                files.get(source, str(target), recursive=files.isdir(source))
        except (DvcException, SCMError, OSError) as error:
            reason = " ".join(str(error).split())[:160]
            raise StateError(
                f"{revision}: its files are not available ({reason}); try `dvc fetch --all-commits`"
            ) from error
        yield scratch, commit, not lineage.is_revision(revision)
