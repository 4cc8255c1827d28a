"""The training loop and the two phases over it, on images that a network learns in a few epochs."""

import dataclasses
import shutil
from itertools import pairwise

import keras
import numpy as np
import pytest
from conftest import in_process_tier, make_params, make_row

from frostline.core.mapped import Memory
from frostline.errors import UserError
from frostline.evaluation import gradcam
from frostline.evaluation.metrics import losses
from frostline.features import predictor
from frostline.features.store import Store
from frostline.models import backbones, bands, bundles, freezing
from frostline.params.schedules import Flat
from frostline.training import batching, checkpoints, loop, phases, thawing
from frostline.training.batching import balanced
from frostline.training.examples import TrainingData
from frostline.training.loop import Position, Snapshot
from frostline.training.networks import Recent
from frostline.training.trainer import Trainer

GOLDEN = [1.61175, 1.35835, 1.52421, 0.136127, 0.117194]

QUICK = {
    "finetune__head_epochs": 2,
    "finetune__epochs": 3,
    "finetune__freeze": "block6_out",
    "finetune__batch_norm": "auto",
    "finetune__learning_rate": 1e-3,
    "head__dropout": 0.3,
}


@pytest.fixture(scope="module")
def kept_trainer():
    """A trainer for all tests; `test_a_kept_network_trains_as_a_fresh_one` proves that it gives the same bits."""
    return Trainer(None)


@pytest.fixture
def train(tmp_path, small_sets, kept_trainer):
    """`train(copies=..., resume=..., **changes)` -> Result, with every snapshot in `train.snapshots`."""

    def run(copies=1, resume=None, trainer=None, looks=(), **changes):
        *variants, validation = small_sets(copies)
        params = make_params(**{**QUICK, **changes})
        store = Store(tmp_path / "features", params.cache.disk_gb * 1e9, Memory(params.cache.memory_gb * 1e9))
        run.snapshots, run.plans = [], []
        if trainer is None:
            trainer = kept_trainer
            for network in trainer._networks._values.values():
                network.heads = Recent(1)  # no head is remembered, so that each epoch is trained and seen
        trainer.store = store
        watch = loop.Watch(lambda _, snapshot: run.snapshots.append(snapshot()), looks, on_plan=run.plans.append)
        return trainer.run(params, TrainingData(variants, validation), resume, watch)

    return run


def weights(result):
    return [np.array(weight) for weight in result.bundle.model.weights]


def best_values(snapshots):
    return [snapshot.position.best_value for snapshot in snapshots if snapshot.phase == "finetune"]


def assert_same(ours, theirs, tolerance=0.0):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


def test_it_learns_and_says_so(train):
    result = train(finetune__epochs=6, finetune__schedule="constant")
    assert [row.phase for row in result.history] == ["head"] * 2 + ["finetune"] * 6
    assert [row.step for row in result.history] == list(range(1, 9))
    assert result.history[-1].val_accuracy > 0.9
    assert result.history[-1].val_loss < result.history[0].val_loss


def test_golden_losses(train):
    """A refactoring must not move them; a change that means to, writes them anew."""
    got = [row.loss for row in train().history]
    np.testing.assert_allclose(got, GOLDEN, rtol=2e-2)


def test_the_same_settings_give_the_same_weights(train):
    assert_same(weights(train()), weights(train()))


@pytest.mark.parametrize("freeze", [in_process_tier("block2_1_conv"), "block6_out", "all"])
def test_stored_and_computed_activations_give_the_same_weights(train, freeze):
    changes = {"finetune__freeze": freeze}
    stored = train(cache__mode="always", **changes)
    plain = train(cache__mode="never", **changes)
    assert_same(weights(stored), weights(plain))


@pytest.mark.slow
def test_a_kept_network_trains_as_a_fresh_one(train, tmp_path):
    """Whatever was trained before with the same trainer: cuts, rates, schedules, heads."""
    trainer = Trainer(Store(tmp_path / "warm", 1e9, Memory(1e9)))
    jobs = [
        {"finetune__freeze": "block6_out"},
        {"finetune__freeze": "block2_1_conv", "finetune__learning_rate": 1e-2},
        {"finetune__freeze": "block6_out", "finetune__learning_rate": 1e-4, "finetune__schedule": "constant"},
        {"finetune__freeze": "all", "head__hidden": [8]},
        {"finetune__freeze": "block6_out", "head__dropout": 0.0, "finetune__label_smoothing": 0.1},
        {"finetune__freeze": "none", "finetune__batch_norm": "train"},
        {"finetune__freeze": "block6_out"},
    ]
    for changes in jobs:
        warm = train(trainer=trainer, **changes)
        kept_weights, kept_best = weights(warm), best_values(train.snapshots)
        fresh = train(**changes)
        assert_same(kept_weights, weights(fresh))
        assert warm.history == fresh.history
        assert kept_best == best_values(train.snapshots)


def test_looking_in_the_middle_of_an_epoch_changes_nothing_and_can_be_gone_on_from(train, tmp_path):
    straight = train()
    looked = train(looks=(0.5, 1.4, 2))
    assert looked.history == straight.history
    assert_same(weights(looked), weights(straight))
    assert [snapshot.position.epoch for snapshot in train.snapshots] == [1, 2, 0, 1, 1, 2, 3]
    checkpoint = checkpoints.Checkpoint(tmp_path / "job.snapshot")
    for middle in (2, 4):
        train(looks=(0.5, 1.4, 2))
        checkpoint.save(train.snapshots[middle])
        assert checkpoint.load().position.batch > 0
        resumed = train(resume=checkpoint.load())
        assert resumed.history == straight.history
        assert_same(weights(resumed), weights(straight))


@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_resumed_training_ends_with_the_same_weights(train, tmp_path, after):
    stopping = {"finetune__early_stopping": {"monitor": "val_loss", "patience": 2}}
    straight = train(**stopping)
    checkpoint = checkpoints.Checkpoint(tmp_path / "checkpoints" / "job.snapshot")
    checkpoint.save(train.snapshots[after - 1])
    resumed = train(resume=checkpoint.load(), **stopping)
    assert_same(weights(resumed), weights(straight))
    assert resumed.history == straight.history
    assert len(train.snapshots) == len(straight.history) - after


def test_a_checkpoint_that_is_damaged_is_none(tmp_path, capsys):
    checkpoint = checkpoints.Checkpoint(tmp_path / "job.snapshot")
    assert checkpoint.load() is None
    position = Position(1, [make_row()], best_value=0.5, best=[np.ones(2)])
    snapshot = Snapshot("head", position, [np.ones(3), np.float32(2) * np.ones(())], [np.ones((0, 3))])
    checkpoint.save(snapshot)
    loaded = checkpoint.load()
    assert [value.tolist() for value in loaded.variables] == [[1, 1, 1], 2.0]
    assert [value.tolist() for value in loaded.position.best] == [[1, 1]]
    assert (loaded.phase, loaded.position.history) == ("head", [make_row()])
    whole = checkpoint.path.read_bytes()
    assert capsys.readouterr().err == ""
    for bit in np.random.default_rng(0).integers(0, 8 * len(whole), 40):
        bad = bytearray(whole)
        bad[bit // 8] ^= 1 << (bit % 8)
        checkpoint.path.write_bytes(bytes(bad))
        assert checkpoint.load() is None
        assert "job.snapshot is damaged" in capsys.readouterr().err
    checkpoint.path.write_bytes(whole[:200])
    assert checkpoint.load() is None
    checkpoint.clear()
    assert not checkpoint.path.exists()


def test_early_stopping_keeps_the_best_weights_and_never_ends_worse_than_the_head(train, small_sets):
    stopping = {"finetune__early_stopping": {"monitor": "val_loss", "patience": 2}}
    ruinous = train(**stopping, finetune__learning_rate=0.1, finetune__epochs=8, finetune__optimizer="sgd")
    assert len(ruinous.history) < 10
    validation = small_sets()[-1]
    final = losses(validation.labels, ruinous.bundle.probabilities(validation)).mean()
    assert final == pytest.approx(min(row.val_loss for row in ruinous.history), rel=1e-4)
    assert final < ruinous.history[-1].val_loss


def test_frozen_layers_stand_still_and_batch_norm_follows_its_setting(train):
    one_epoch = {"finetune__head_epochs": 0, "finetune__epochs": 1}
    frozen = train(finetune__freeze="block6_out", **one_epoch).audit
    assert frozen.batch_norm_training == 0
    trained = train(finetune__freeze="block6_out", finetune__batch_norm="train", **one_epoch).audit
    assert 0 < trained.batch_norm_training < trained.batch_norm_layers
    assert trained.trainable_parameters > frozen.trainable_parameters
    random = train(finetune__freeze="none", backbone__weights="none", **one_epoch).audit
    assert random.batch_norm_training == random.batch_norm_layers
    assert random.frozen_layers == 0


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        ("adam", "constant"),
        ("sgd", "cosine"),
        *map(in_process_tier, ("adam", "adamw", "adamw", "sgd"), ("cosine", "constant", "cosine", "constant")),
    ],
)
def test_optimizers_and_schedules_train(train, optimizer, schedule):
    result = train(finetune__optimizer=optimizer, finetune__schedule=schedule, finetune__epochs=2, copies=0)
    rates = [row.learning_rate for row in result.history]
    assert rates[0] == pytest.approx(3e-3 if schedule == "constant" else 1.5e-3, rel=1e-3)
    assert rates[-1] == pytest.approx(1e-3 if schedule == "constant" else 0, abs=1e-6)
    assert result.history[-1].loss < result.history[0].loss


@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize(
    ("optimizer", "decay", "momentum", "theirs"),
    [
        ("adam", 0.1, 0.0, keras.optimizers.Adam(0.01)),
        ("adamw", 0.1, 0.9, keras.optimizers.AdamW(0.01, weight_decay=0.1)),
        ("sgd", 0.0, 0.0, keras.optimizers.SGD(0.01)),
        ("sgd", 0.1, 0.8, keras.optimizers.SGD(0.01, momentum=0.8, weight_decay=0.1)),
        ("adamw", 0.1, 0.0, keras.optimizers.AdamW(0.01, weight_decay=0.1, use_ema=True, ema_momentum=0.1)),
        ("sgd", 0.1, 0.8, keras.optimizers.SGD(0.01, 0.8, weight_decay=0.1, use_ema=True, ema_momentum=0.1)),
    ],
    ids=["adam", "adamw", "sgd", "momentum", "averaged adamw", "averaged momentum"],
)
def test_an_epoch_is_that_of_keras_with_the_same_optimizer_and_loss(units, optimizer, decay, momentum, theirs):
    """Numbers that are not compiled in come to the same as those that are, in a learner that had others before.

    Keras's average begins with its full momentum, ours with (1 + t) / (10 + t), so they are compared at 0.1.
    """
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 6)).astype(np.float32), rng.integers(0, max(2, units), 40)
    start, smoothing = rng.normal(size=(6, units)).astype(np.float32), 0.2
    targets = labels[:, None].astype(np.float32) if units == 1 else np.eye(units, dtype=np.float32)[labels]

    class Same:
        def take(self, rows):
            return x[rows]

    def linear():
        given = keras.Input((6,))
        return keras.Model(given, keras.layers.Dense(units)(given))

    average = theirs.ema_momentum if theirs.use_ema else 0.0
    phase = phases.Phase(
        "finetune",
        1,
        range(1),
        8,
        optimizer,
        0.01,
        Flat(),
        seed=3,
        weight_decay=decay,
        momentum=momentum,
        label_smoothing=smoothing,
        ema_momentum=average,
    )
    halved = {key: getattr(phase, key) / 2 for key in ("weight_decay", "momentum", "ema_momentum", "label_smoothing")}
    other = dataclasses.replace(phase, learning_rate=0.02, **halved)
    examples = batching.Examples([Same()], labels)
    learner = loop.Learner(linear(), phase.rule)
    for each in (other, phase):
        learner.model.layers[1].set_weights([start, np.zeros(units, np.float32)])
        (row,) = learner.fit(each, examples, examples, [])

    model = linear()
    model.layers[1].set_weights([start, np.zeros(units, np.float32)])
    kind = keras.losses.BinaryCrossentropy if units == 1 else keras.losses.CategoricalCrossentropy
    optimizer = type(theirs).from_config(theirs.get_config())
    model.compile(optimizer, kind(from_logits=True, label_smoothing=smoothing))

    order = np.random.default_rng([3, 0, *b"finetune"]).permutation(40)
    fitted = model.fit(x[order], targets[order], batch_size=8, shuffle=False, verbose=0)
    assert row.loss == pytest.approx(fitted.history["loss"][0], rel=1e-5)
    assert_same(learner.model.get_weights(), model.get_weights(), 1e-6)
    logits = model.predict(x, verbose=0)
    guessed = logits[:, 0] > 0 if units == 1 else logits.argmax(axis=1)
    assert row.val_accuracy == pytest.approx((guessed == labels).mean())
    assert row.val_loss == pytest.approx(model.evaluate(x, targets, verbose=0), rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"finetune__label_smoothing": 0.1, "finetune__class_weight": "balanced"},
        in_process_tier({"finetune__precision": "mixed_bfloat16"}),
        in_process_tier({"head__hidden": [16], "head__pooling": "flatten"}),
        in_process_tier({"finetune__head_epochs": 0}),
        in_process_tier({"cache__dtype": "float16"}),
        in_process_tier({"backbone__until": "block4_out", "finetune__freeze": "all"}),
        in_process_tier(
            {"head__hidden": [16, 8], "head__dropout": [0.5, 0.0], "head__batch_norm": True, "head__l2": 1e-3}
        ),
        {"finetune__loss": "focal", "finetune__precision": "mixed_float16"},
    ],
    ids=str,
)
def test_other_settings_train_too(train, changes):
    result = train(**{"copies": 0, "finetune__epochs": 2, **changes})
    first, *later = (row.loss for row in result.history)
    assert min(later) < first
    assert result.bundle.model.output.dtype == "float32"


def test_in_float16_a_step_follows_the_rule_too(train):
    """There the optimizer is inside another one, which scales the loss."""
    half = {"finetune__precision": "mixed_float16", "finetune__optimizer": "adamw", "copies": 0}
    plain, decayed = (
        weights(train(finetune__weight_decay=decay, finetune__freeze="all", **half)) for decay in (0.0, 0.9)
    )
    assert np.abs(plain[-2]).sum() > 1.005 * np.abs(decayed[-2]).sum()


def test_a_diverging_loss_is_one_line_that_names_the_key(train):
    with pytest.raises(UserError, match=r"loss became .* in epoch \d of phase finetune; lower finetune.learning_rate"):
        train(finetune__learning_rate=1e30, finetune__optimizer="sgd", finetune__freeze="none")


def test_a_loss_that_the_last_update_ruined_is_seen_too(train):
    ruin = {"finetune__learning_rate": 1e38, "finetune__optimizer": "sgd", "finetune__batch_size": 64}
    with pytest.raises(UserError, match=r"lower finetune\.learning_rate"):
        train(**ruin, copies=0, finetune__epochs=1)


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0, 0, 0, 1, 2, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced(labels, 3), expected, rtol=1e-6)


def test_features_are_computed_for_the_variants_that_epochs_reach(train, tmp_path):
    train(copies=2, finetune__head_epochs=2, finetune__epochs=0)
    (entry,) = Store(tmp_path / "features", 1e9, Memory(0)).usage()
    assert entry.images == 42 * 2 + 18  # two variants and validation
    train(copies=2, finetune__head_epochs=3, finetune__epochs=0)
    assert "102 of 144 images there" in train.plans[0]


def test_a_damaged_store_is_one_line_of_warning_and_the_same_weights(train, tmp_path, capsys):
    straight = train(cache__mode="always")
    block = min((tmp_path / "features").glob("*/[!.]*.npy"))
    data = bytearray(block.read_bytes())
    data[-5] ^= 1
    block.write_bytes(data)
    capsys.readouterr()
    assert_same(weights(train(cache__mode="always")), weights(straight))
    (line,) = capsys.readouterr().err.splitlines()
    assert "is damaged (its checksum differs); its features are computed again" in line


def test_float16_features_move_the_weights_by_little(train):
    """The bound that docs/decisions/0007 states."""
    exact = weights(train(cache__mode="never"))
    rounded = weights(train(cache__mode="always", cache__dtype="float16"))
    assert_same(rounded, exact, 0.02)
    assert any(not np.array_equal(one, other) for one, other in zip(exact, rounded, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("freeze", ["block5c_add", "block6a_expand_activation", "all"])
def test_drop_connect_below_and_above_the_line_gives_the_same_weights_cached(train, freeze):
    """EfficientNet has BatchNorm everywhere and drop-connect in its blocks."""
    changes = {"backbone__name": "EfficientNetB0", "backbone__weights": "none", "finetune__freeze": freeze}
    stored = train(cache__mode="always", **changes)
    plain = train(cache__mode="never", **changes)
    assert_same(weights(stored), weights(plain), 1e-6)


def test_data_that_do_not_fit_the_budget_are_not_stored(train, tmp_path):
    stored = train()
    shutil.rmtree(tmp_path / "features")
    passed = train(cache__disk_gb=1e-6)
    assert not list((tmp_path / "features").glob("*/*.npy"))
    assert [r.phase for r in passed.history] == [r.phase for r in stored.history]
    assert dataclasses.asdict(passed.audit) == dataclasses.asdict(stored.audit)


def test_a_backbone_thaws_block_by_block_and_can_be_resumed(train, tmp_path):
    changes = {"finetune__freeze": "gradual", "finetune__epochs": 7, "copies": 2}
    straight = train(**changes)
    rows = [row for row in straight.history if row.phase == "finetune"]
    assert [row.epoch for row in rows] == list(range(1, 8))
    depths = [row.frozen_layers for row in rows]
    assert depths == sorted(depths, reverse=True)
    assert depths[0] > depths[2] > depths[-1] == 0
    rates = [row.learning_rate for row in rows]
    assert rates == sorted(rates, reverse=True)  # one cosine over all stages
    groups = straight.bundle.made_from.groups
    thawed = [group.thawed for group in groups]
    assert thawed == sorted(thawed, reverse=True)
    assert sum(group.parameters for group in groups) == straight.bundle.model.count_params()
    checkpoint = checkpoints.Checkpoint(tmp_path / "job.snapshot")
    snapshots = list(train.snapshots)
    for after in (3, 5):  # at the end of a stage, within one
        checkpoint.save(snapshots[after])
        resumed = train(resume=checkpoint.load(), **changes)
        assert resumed.history == straight.history
        assert_same(weights(resumed), weights(straight))


def test_a_band_alone_is_trained_and_stored_features_change_no_bit(train):
    changes = {"finetune__freeze": None, "finetune__train": (2, 3), "finetune__batch_norm": "train"}
    stored = train(cache__mode="always", **changes)
    plain = train(cache__mode="never", **changes)
    assert_same(weights(stored), weights(plain))
    body, pretrained = body_of(stored), backbones.build("frostnet", "builtin", 32).model
    ends = [0, *bands.blocks(body)]
    for number, (start, end) in enumerate(pairwise(ends), 1):
        layers = zip(body.layers[start:end], pretrained.layers[start:end], strict=True)
        is_same = [
            np.array_equal(one, other)
            for layer, twin in layers
            for one, other in zip(layer.get_weights(), twin.get_weights(), strict=True)
        ]
        assert not any(is_same) if number in (2, 3) else all(is_same)
    assert stored.audit.frozen_weights_unchanged == sum(
        len(layer.weights) for layer in [*body.layers[: ends[1]], *body.layers[ends[3] :]]
    )
    assert [group.learning_rate > 0 for group in stored.bundle.made_from.groups] == [False, True, True, False, True]


@pytest.mark.slow
def test_stages_that_thaw_draw_stored_features_as_computed_ones(train):
    changes = {"finetune__freeze": ["gradual", "block2_out"], "finetune__epochs": 5, "copies": 3}
    stored = train(cache__mode="always", **changes)
    plain = train(cache__mode="never", **changes)
    assert_same(weights(stored), weights(plain))
    assert stored.audit.frozen_layers == freezing.depth(backbones.build("frostnet", "none", 32).model, "block2_out")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_block_learns_at_its_own_rate(train, optimizer):
    """One step of a rate r and decay d moves a block n below the top as one of the rate r * d^n does."""
    common = {
        "finetune__optimizer": optimizer,
        "finetune__head_epochs": 0,
        "finetune__epochs": 1,
        "finetune__batch_size": 42,
        "finetune__schedule": "constant",
        "finetune__ema_momentum": 0.0,
        "finetune__weight_decay": 0.1,
        "head__dropout": 0.0,
        "copies": 0,
    }
    trained = train(
        finetune__freeze="discriminative", finetune__layer_decay=0.5, finetune__learning_rate=0.01, **common
    )
    blocks = thawing.from_top(body_of(trained))
    got = {weight.path: np.array(weight) for weight in body_of(trained).trainable_weights}
    for below in sorted(set(blocks.values())):
        alike = train(finetune__freeze="none", finetune__learning_rate=0.01 * 0.5**below, **common)
        same = {weight.path: np.array(weight) for weight in body_of(alike).trainable_weights}
        for path in (path for path in same if blocks[path] == below):
            np.testing.assert_allclose(got[path], same[path], rtol=0, atol=1e-6)


def body_of(result):
    return next(
        layer for layer in result.bundle.model.layers if isinstance(layer, keras.Model) and layer.name != "head"
    )


def test_the_rate_is_lowered_where_nothing_improves_and_a_resumed_training_knows(train, tmp_path):
    changes = {
        "finetune__epochs": 6,
        "finetune__schedule": "constant",
        "finetune__callbacks": {"ReduceLROnPlateau": {"monitor": "val_loss", "patience": 1, "min_delta": 10.0}},
    }
    straight = train(**changes)
    rates = [row.learning_rate for row in straight.history if row.phase == "finetune"]
    np.testing.assert_allclose(rates[:3], [1e-3, 1e-3, 1e-4], rtol=1e-5)
    checkpoint = checkpoints.Checkpoint(tmp_path / "job.snapshot")
    checkpoint.save(train.snapshots[4])
    resumed = train(resume=checkpoint.load(), **changes)
    assert resumed.history == straight.history


def test_a_checkpoint_keeps_the_best_epoch_without_stopping(train, small_sets):
    best = {"finetune__callbacks": {"ModelCheckpoint": {"monitor": "val_loss"}}}
    ruinous = train(**best, finetune__learning_rate=0.1, finetune__epochs=5, finetune__optimizer="sgd")
    assert len(ruinous.history) == 7
    validation = small_sets()[-1]
    final = losses(validation.labels, ruinous.bundle.probabilities(validation)).mean()
    assert final == pytest.approx(min(row.val_loss for row in ruinous.history), rel=1e-4)


@pytest.mark.parametrize(
    "mix",
    [pytest.param({"augment__mixup": 0.4}, marks=pytest.mark.slow), {"augment__cutmix": 1.0, "augment__mixup": 0.2}],
    ids=str,
)
@pytest.mark.parametrize("freeze", [pytest.param("none", marks=pytest.mark.slow), "block4_out"])
def test_mixed_batches_train_the_same_wherever_one_looks(train, mix, freeze):
    changes = {"finetune__freeze": freeze, "finetune__class_weight": "balanced", "finetune__epochs": 2, **mix}
    straight, looked = train(**changes), train(looks=(0.5,), **changes)
    assert looked.history == straight.history
    assert straight.history != train(**{**changes, "augment__mixup": 0.0, "augment__cutmix": 0.0}).history


def test_cutmix_without_feature_maps_is_refused_naming_both_keys():
    with pytest.raises(UserError, match=r"augment\.cutmix needs .* finetune\.freeze all"):
        make_params(augment__cutmix=1.0, finetune__freeze="all")


@pytest.mark.parametrize("freeze", [66, "block8_out"])
def test_cutmix_is_refused_too_where_a_number_or_a_layer_freezes_everything(train, freeze):
    with pytest.raises(UserError, match=rf"augment\.cutmix needs .* finetune\.freeze {freeze}"):
        train(augment__cutmix=1.0, finetune__freeze=freeze)


def test_live_variants_are_drawn_afresh_and_alike_in_every_training(train, tmp_path):
    changes = {"augment__mode": "live", "finetune__freeze": "block6_out", "finetune__epochs": 3, "copies": 0}
    trainer = Trainer(Store(tmp_path / "warm", 1e9, Memory(1e9)))
    first = train(trainer=trainer, **changes)
    assert "finetune on live variants" in train.plans[0]
    assert "head on" in train.plans[0]
    kept_weights = weights(first)
    warm = train(trainer=trainer, **changes)
    assert_same(weights(warm), kept_weights)
    assert warm.history == first.history == train(**changes).history
    checkpoint = checkpoints.Checkpoint(tmp_path / "job.snapshot")
    checkpoint.save(train.snapshots[3])
    assert first.history != train(**{**changes, "augment__mode": "stored"}).history
    resumed = train(resume=checkpoint.load(), **changes)
    assert resumed.history == first.history
    assert_same(weights(resumed), kept_weights)


@pytest.mark.parametrize("kind", ["logistic_regression", *map(in_process_tier, ("linear_svm", "random_forest", "knn"))])
def test_a_classifier_of_scikit_learns_is_trained_on_frozen_features(train, small_sets, kind, tmp_path):
    changes = {"head__classifier": kind, "finetune__freeze": "all", "head__dropout": 0.0, "copies": 2}
    result = train(**changes)
    (row,) = result.history
    assert row.val_accuracy > 0.6
    assert result.audit.frozen_layers == result.audit.layers
    validation = small_sets()[-1]
    probabilities = result.bundle.probabilities(validation)
    assert losses(validation.labels, probabilities).mean() == pytest.approx(row.val_loss, rel=1e-3, abs=1e-6)
    store = Store(tmp_path / "features", 1e9, Memory(1e9))
    np.testing.assert_allclose(
        predictor.probabilities(result.bundle, validation, store, "always"), probabilities, atol=1e-4
    )
    bundles.save(tmp_path, result.bundle)
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    np.testing.assert_allclose(loaded.predict(validation.take(np.arange(18)), verbose=0), probabilities, atol=1e-5)
    heat = gradcam.GradCam(result.bundle)(validation.take(np.arange(3)), probabilities[:3].argmax(axis=1))
    assert heat.shape == (3, 32, 32)
    assert heat.max() == pytest.approx(1) or kind == "knn"  # places alone may all have the same neighbours
    assert predictor.logits(result.bundle.calibrated(2.0), validation, store, "always").shape == (18, 3)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"finetune__freeze": "block4_out"}, r"finetune\.freeze block4_out"),
        ({"head__binary": True}, r"head\.binary true"),
        ({"augment__mode": "live"}, r"augment\.mode live"),
        ({"head__hidden": [8]}, r"head\.hidden \[8\]"),
    ],
    ids=str,
)
def test_what_a_classifier_of_scikit_learns_cannot_go_with_names_both_keys(changes, key):
    with pytest.raises(UserError, match=rf"head\.classifier knn is trained on .* can't go with {key}"):
        make_params(**{"head__classifier": "knn", "finetune__freeze": "all", **changes})
