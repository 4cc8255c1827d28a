import pytest
from conftest import make_params

from frostline.errors import ParamsError
from frostline.params.schema import Params
from frostline.search import space


def dimensions(given, depths=("none", "a", "all")):
    return space.dimensions(make_params(sweep__space=given), lambda spec: depths)


def test_what_params_yaml_says():
    found = dimensions(
        {
            "finetune.freeze": {"auto": 3},
            "finetune.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
            "finetune.head_epochs": [8, 16, 16, 32],
            "finetune.optimizer": ["adam", "sgd"],
            "finetune.epochs": {"low": 2, "high": 6, "step": 2},
            "head.dropout": {"low": 0.0, "high": 0.5},
            "augment.rotation": {"low": 0, "high": 30},
            "finetune.batch_size": {"low": 8, "high": 64, "log": True},
        }
    )
    assert found == [
        space.Choice("finetune.freeze", ("none", "a", "all"), is_ordered=True),
        space.Interval("finetune.learning_rate", 1e-5, 1e-2, log=True, step=None, is_whole=False),
        space.Choice("finetune.head_epochs", (8, 16, 32), is_ordered=True),
        space.Choice("finetune.optimizer", ("adam", "sgd"), is_ordered=False),
        space.Interval("finetune.epochs", 2, 6, log=False, step=2, is_whole=True),
        space.Interval("head.dropout", 0.0, 0.5, log=False, step=None, is_whole=False),
        space.Interval("augment.rotation", 0, 30, log=False, step=None, is_whole=False),
        space.Interval("finetune.batch_size", 8, 64, log=True, step=None, is_whole=True),
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"finetune.learning_rat": [1e-3]}, "learning_rat is not a key; did you mean finetune.learning_rate?"),
        ({"head.dropout": [0.1, 1.5]}, r"head.dropout = 1.5 can't be: .*less than 1"),
        ({"finetune.learning_rate": {"low": -1.0, "high": 1.0}}, r"learning_rate = -1.0 can't be: .*greater than 0"),
        ({"finetune.optimizer": ["adam", "rmsprop"]}, r"optimizer = 'rmsprop' can't be"),
        ({"data.image_size": [32, 64]}, r"data.image_size can't be searched.*dvc exp run"),
        ({"seed": [1, 2]}, "seed can't be searched"),
        ({"head.dropout": {"auto": 4}}, "for finetune.freeze alone"),
        ({"finetune": [1]}, "can't be searched"),
        ({"backbone.until": ["block4_out"]}, "can't be searched"),
        ({"finetune.batch_size": {"low": 8, "high": 64, "step": 0.5}}, r"batch_size = 8.0 can't be"),
    ],
    ids=str,
)
def test_a_wrong_space_is_one_line_that_names_the_key(given, said):
    with pytest.raises(ParamsError, match=said) as caught:
        dimensions(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"low": 1, "high": 0},
        {"low": 0.0, "high": 1.0, "log": True},
        {"low": 0, "high": 1, "step": 1, "log": True},
        {"low": 0},
        [],
        {"auto": 1},
        "all",
    ],
    ids=str,
)
def test_what_is_no_range_is_refused_when_params_yaml_is_read(given, tmp_path):
    with pytest.raises(ValueError, match="space"):
        make_params(sweep__space={"finetune.learning_rate": given})


def test_a_trial_is_params_yaml_with_some_keys_changed():
    params = make_params()
    trial = space.with_values(params, {"finetune.freeze": "all", "head.dropout": 0.4, "augment.rotation": 3})
    assert (trial.finetune.freeze, trial.head.dropout, trial.augment.rotation) == ("all", 0.4, 3)
    assert isinstance(trial, Params)
    changed = trial.model_dump()
    changed["finetune"]["freeze"], changed["head"]["dropout"] = params.finetune.freeze, params.head.dropout
    changed["augment"]["rotation"] = params.augment.rotation
    assert changed == params.model_dump()


def test_a_loss_is_not_compared_where_the_search_changes_what_it_is():
    params = make_params(sweep__space={"finetune.label_smoothing": [0.0, 0.1]}, sweep__metric="val_loss")
    with pytest.raises(ParamsError, match=r"val_loss can't compare .* set it to val_accuracy"):
        space.dimensions(params, lambda spec: [])
