"""The private names of Keras and scikit-learn that models use exist in the installed releases, with their meaning."""

from importlib.metadata import version

import keras
import numpy as np

from frostline.models import keras_internals

RENAMED = f"Keras {version('keras')} has renamed it; see src/frostline/models/keras_internals.py"


def test_models_and_operations_have_the_attributes_that_are_read():
    inputs = keras.Input((3,))
    dense, relu = keras.layers.Dense(2), keras.layers.ReLU()
    outputs = relu(dense(inputs))
    model = keras.Model(inputs, outputs)
    for owner, name in [
        (model, "_nodes_by_depth"),
        (dense, "_inbound_nodes"),
        (dense, "_outbound_nodes"),
        (outputs, "_keras_history"),
    ]:
        assert hasattr(owner, name), f"{type(owner).__name__}.{name}: {RENAMED}"
    assert [node.operation for node in keras_internals.nodes(model)][1:] == [dense, relu]
    assert keras_internals.producer(outputs) is relu
    assert keras_internals.consumers(dense) == [relu]


def test_layers_are_numbered_as_in_a_new_process():
    names = []
    for _ in range(2):
        with keras_internals.names_from_one():
            names.append([keras.layers.Dense(1).name for _ in range(2)])
    assert names == [["dense", "dense_1"]] * 2, RENAMED


def test_a_neighbours_classifier_has_the_attributes_that_its_layers_are_made_of():
    from sklearn.neighbors import KNeighborsClassifier

    features, labels = np.array([[0.0], [1.0], [3.0]]), np.array([5, 7, 5])
    estimator = KNeighborsClassifier(1).fit(features, labels)
    renamed = f"scikit-learn {version('scikit-learn')} has renamed it; see src/frostline/models/sklearn_layers.py"
    assert hasattr(estimator, "_fit_X"), renamed
    assert hasattr(estimator, "_y"), renamed
    np.testing.assert_array_equal(estimator._fit_X, features)
    np.testing.assert_array_equal(estimator.classes_[estimator._y], labels)
