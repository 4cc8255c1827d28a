"""A space of features in which the images of every class spread alike, and distances in it.

Features at a depth of the body are turned into their WIDEST main directions, and scaled so that the spread within the
classes, shrunk towards equal directions, is 1 (linear discriminant analysis without its last step). Two distances are
taken there: to the mean of the nearest class, which is Mahalanobis' (Lee et al., "A Simple Unified Framework for
Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS 2018), and to the nearest training image (Sun
et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022), by the angle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

WIDEST = 128  # directions
SHRINKAGE = 0.3  # of the covariance within the classes; 0.1 to 0.6 differ by less than 0.01 of AUROC
FLOOR = 1e-9  # smallest variance of a direction, as a share of the largest


@dataclass(frozen=True)
class Space:
    """kernel (width, r), bias (r,): features -> the space; means (classes, r): of the classes that have images; bank
    (images, r): training images, each scaled to length 1. All float32."""

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    means: NDArray[np.float32]
    bank: NDArray[np.float32]

    def of(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (n, width) in the space, float32 (n, r)."""
        return features @ self.kernel + self.bias

    def distances(self, features: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The distances of features (n, width): `mahalanobis`, at least 0, and `neighbour`, 1 minus the cosine of the
        angle to the nearest training image, 0 to 2; float32 (n,) each."""
        inside = self.of(features)
        nearness = 2 * inside @ self.means.T - (self.means**2).sum(axis=1)
        square = (inside**2).sum(axis=1) - nearness.max(axis=1)
        cosine = (_unit(inside) @ self.bank.T).max(axis=1)
        return {"mahalanobis": np.sqrt(np.maximum(square, 0)), "neighbour": 1 - cosine}

    def layers(self, features: keras.KerasTensor) -> dict[str, Any]:
        """The same distances as layers of Keras, for features (n, width)."""
        ops = keras.ops
        inside = _dense(features, self.kernel, self.bias, "whitened")
        nearness = _dense(inside, 2 * self.means.T, -(self.means**2).sum(axis=1), "nearness_to_means")
        length = ops.sum(ops.square(inside), axis=-1)
        square = ops.maximum(length - ops.max(nearness, axis=-1), 0.0)
        unit = inside / ops.expand_dims(ops.sqrt(ops.maximum(length, 1e-12)), axis=-1)
        cosine = ops.max(_dense(unit, self.bank.T, np.zeros(len(self.bank)), "bank"), axis=-1)
        return {"mahalanobis": ops.sqrt(square), "neighbour": 1.0 - cosine}


def fit(features: NDArray[np.float32], labels: NDArray[np.int64]) -> Space:
    """The space of training images. features: (n, width); labels: (n,), of two classes or more."""
    x = features.astype(np.float64)
    mean = x.mean(axis=0)
    directions = _main_directions(x - mean)
    turned = (x - mean) @ directions
    _, number = np.unique(labels, return_inverse=True)
    counts = np.bincount(number)
    means = np.stack([np.bincount(number, column) for column in turned.T], axis=1) / counts[:, None]
    spread = turned - means[number]
    covariance = spread.T @ spread / len(x)
    equal = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    variances, axes = np.linalg.eigh((1 - SHRINKAGE) * covariance + SHRINKAGE * equal)
    scaling = axes / np.sqrt(np.maximum(variances, FLOOR * max(variances[-1], FLOOR)))
    kernel = directions @ scaling
    arrays = kernel, -mean @ kernel, means @ scaling, _unit(turned @ scaling)
    return Space(*(array.astype(np.float32) for array in arrays))


def _main_directions(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The directions in which vectors of mean 0 vary most: (width, r), of length 1. x: (n, width)."""
    from scipy.linalg import eigh

    is_wide = x.shape[1] > len(x)
    products = x @ x.T if is_wide else x.T @ x  # the smaller ones; both have the same eigenvalues
    order = len(products)
    variances, axes = eigh(products, subset_by_index=[max(0, order - WIDEST), order - 1])
    kept = variances > FLOOR * variances[-1]
    return x.T @ (axes[:, kept] / np.sqrt(variances[kept])) if is_wide else axes[:, kept]


def _unit(vectors: NDArray[Any]) -> NDArray[Any]:
    return vectors / np.sqrt(np.maximum((vectors**2).sum(axis=1, keepdims=True), 1e-12))


def _dense(x: Any, kernel: NDArray[Any], bias: NDArray[Any], name: str) -> Any:
    layer = keras.layers.Dense(len(bias), dtype="float32", name=name)
    output = layer(x)
    layer.set_weights([kernel.astype(np.float32), bias.astype(np.float32)])
    return output
