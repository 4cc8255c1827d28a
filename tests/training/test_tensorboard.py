"""TensorBoard can read the metrics of the epochs."""

import pytest
from conftest import make_params, make_row

from frostline.training import tensorboard


def test_tensorboard_reads_the_metrics_of_every_epoch(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    write = tensorboard.writer(make_params(finetune__callbacks={"TensorBoard": {"log_dir": "boards"}}), "a" * 32)
    for step in (1, 2):
        write(make_row(step=step, loss=1 / step, val_loss=2 / step))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    for kind, first in (("train", 1.0), ("validation", 2.0)):
        events = EventAccumulator(str(tmp_path / "boards" / ("a" * 12) / kind)).Reload()
        (first_step, second) = events.Tensors("epoch_loss")
        assert (first_step.step, second.step) == (1, 2)
        assert make_ndarray(first_step.tensor_proto) == pytest.approx(first)


def test_without_the_setting_nothing_is_written():
    assert tensorboard.writer(make_params(), "a" * 32)(make_row()) is None
