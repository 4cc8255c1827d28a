"""Weights and bundles are checked before any part of them is loaded, because they may come from anyone."""

import json
import shutil
import zipfile

import h5py
import numpy as np
import pytest
from conftest import make_bundle

from frostline.errors import DataError, WeightsError
from frostline.models import account, backbones, bundles, weight_files
from frostline.models.weight_files import UnsafeFileError, require_safe
from frostline.serving import loading


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle") / "it", ("cat", "dog"))


def hdf5(path, make):
    with h5py.File(path, "w") as file:
        file["layer/vars/0"] = np.ones((3, 3), np.float32)
        make(file)
    return path


def virtual(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "x", (4,))
    file.create_virtual_dataset("v", layout)


HOSTILE = {
    "external link": (lambda f: f.__setitem__("l", h5py.ExternalLink("secret.h5", "x")), "l is a link to another file"),
    "soft link": (lambda f: f.__setitem__("l", h5py.SoftLink("/layer")), "l is a link to a place"),
    "external storage": (
        lambda f: f.create_dataset("e", (4,), "f4", external=[("secret.bin", 0, h5py.h5f.UNLIMITED)]),
        "e keeps its numbers in another file",
    ),
    "virtual": (virtual, "v keeps its numbers in another file"),
    "never written": (lambda f: f.create_dataset("b", (10**6, 10**6), "f4"), "it says that it holds 4,000,000 MB"),
    "packed": (
        lambda f: f.create_dataset("p", data=np.zeros(30_000_000, "f4"), chunks=True, compression="gzip"),
        "it says that it holds 120 MB",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_links_to_other_files_and_huge_content_are_refused(tmp_path, kind):
    make, reason = HOSTILE[kind]
    path = hdf5(tmp_path / "a.weights.h5", make)
    with pytest.raises(UnsafeFileError, match=reason):
        require_safe(path)
    with pytest.raises(WeightsError, match=f"a.weights.h5: does not hold the weights of frostnet .{reason}"):
        backbones.build("frostnet", str(path), 32)
    archive = tmp_path / "a.keras"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(path, weight_files.WEIGHTS)
    with pytest.raises(UnsafeFileError, match=reason):
        require_safe(archive)


def test_a_ring_of_hard_links_ends_and_plain_files_pass(tmp_path, bundle):
    require_safe(hdf5(tmp_path / "a.h5", lambda f: f["layer"].__setitem__("again", f["/"])))
    require_safe(bundle / "model.keras")
    require_safe(tmp_path / "missing.h5")


@pytest.mark.parametrize("suffix", [".keras", ".npz"])
def test_an_archive_that_unpacks_to_gigabytes_is_refused_by_its_directory(tmp_path, suffix):
    path = tmp_path / f"bomb{suffix}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("model.weights.h5", "w") as member:
        for _ in range(200):
            member.write(bytes(2**20))
    with pytest.raises(UnsafeFileError, match=r"it says that it holds 210 MB in a file of 0\.2 MB"):
        require_safe(path)


def account_or_message(folder):
    try:
        return account.read(folder)
    except DataError as error:
        return str(error)


def test_any_flipped_bit_of_a_bundle_is_noticed_or_changes_nothing(tmp_path, bundle):
    rng = np.random.default_rng(0)
    expected = account.read(bundle)
    for name in (account.ACCOUNT, account.MODEL):
        whole = (bundle / name).read_bytes()
        for place in rng.integers(0, 8 * len(whole), 25):
            copy = tmp_path / "copy"
            shutil.copytree(bundle, copy)
            data = bytearray(whole)
            data[place // 8] ^= 1 << (place % 8)
            (copy / name).write_bytes(bytes(data))
            result = account_or_message(copy)
            assert result == expected or (
                str(result).startswith(f"{copy}: holds no") and str(result).endswith("or name another one")
            )
            shutil.rmtree(copy)


def test_a_damaged_network_is_reported_in_one_line_by_every_command(tmp_path, bundle):
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    data = bytearray((copy / "model.keras").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.keras").write_bytes(bytes(data))
    for load in (bundles.load, loading.scorer_of):
        with pytest.raises(DataError, match=r"copy: holds no classifier \(.*damaged.*run `dvc repro`"):
            load(copy)
    values = json.loads((copy / "bundle.json").read_text())
    del values["digest"]  # like older bundles
    (copy / "bundle.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"it is damaged: the checksum of model\.weights\.h5 differs"):
        bundles.load(copy)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"classes": ["a"]}, "not a list of two or more names"),
        ({"classes": [1, 2]}, "not a list of two or more names"),
        ({"classes": ["a", "a"]}, "named twice"),
        ({"image_size": 10**9}, "not 1 to 8192"),
        ({"image_size": True}, "not 1 to 8192"),
        ({"resize": "x"}, "not one of crop, pad, stretch"),
        ({"resize": []}, "not one of crop, pad, stretch"),
        ({"made_from": 3}, "made_from: input should be a dictionary"),
        ({"made_from": {"seed": 1}}, "made_from.backbone: field required"),
    ],
    ids=str,
)
def test_an_absurd_account_is_refused(tmp_path, bundle, changes, reason):
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    values = {**json.loads((copy / "bundle.json").read_text()), **changes}
    del values["digest"]
    (copy / "bundle.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=f"holds no classifier .*{reason}.*in bundle.json"):
        account.read(copy)
    for text in ("[]", "{}", "{", "[" * 10**5, "9" * 10**5):
        (copy / "bundle.json").write_text(text)
        with pytest.raises(DataError, match="holds no classifier"):
            account.read(copy)
