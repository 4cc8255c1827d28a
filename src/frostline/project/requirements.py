"""requirements.lock of a project: frostline and all that it needs, in the versions that are installed here.

A stage depends on this file, so it says everything of the environment that a result may depend on, and its text
depends on that alone.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlparse

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from frostline import paths

NAME = "frostline"


@dataclass(frozen=True)
class Origin:
    """Where frostline was installed from.

    version: of the distribution; is_indexed: pip found it in a package index, and not in a file or folder; wheel: that
    file, if it is a wheel and still there; sha256: of the file, if pip noted it.
    """

    version: str
    is_indexed: bool
    wheel: Path | None = None
    sha256: str | None = None

    @property
    def advice(self) -> str | None:
        """What to do so that other machines get this frostline, one line; None if an index has it."""
        if self.is_indexed:
            return None
        if self.wheel is not None:
            return f"{NAME} was installed from a file, so its wheel is in {paths.WHEELS}/, where pip will find it"
        return (
            f"{NAME} {self.version} was not installed from an index: put {NAME}-{self.version}-py3-none-any.whl into "
            f"{paths.WHEELS}/, where requirements.lock lets pip look for it"
        )


def origin() -> Origin:
    """The origin of the frostline that runs, by what pip recorded (PEP 610)."""
    installed = distribution(NAME)
    record = installed.read_text("direct_url.json")
    if record is None:
        return Origin(installed.version, True)
    direct = json.loads(record)
    path = Path(unquote(urlparse(direct["url"]).path))
    is_wheel = path.suffix == ".whl" and path.is_file()
    sha256 = direct.get("archive_info", {}).get("hashes", {}).get("sha256")
    return Origin(installed.version, False, path if is_wheel else None, sha256)


def lock(requirements: Iterable[str], source: Origin) -> str:
    """The text of requirements.lock. requirements: of the project, as in pyproject.toml."""
    release = ".".join(platform.python_version_tuple()[:2])
    lines = [
        f"# What `frostline init` found installed, for Python {release}. All stages depend on it.",
        "# After an upgrade, `frostline init --update` writes it anew.",
    ]
    if not source.is_indexed:
        lines += [f"--find-links {paths.WHEELS}"]
        lines += [f"# sha256 of the wheel of {NAME}: {source.sha256}"] if source.sha256 else []
    pins = installed_versions(requirements)
    return "\n".join([*lines, *(f"{name}=={version}" for name, version in sorted(pins.items()))]) + "\n"


def installed_versions(requirements: Iterable[str]) -> dict[str, str]:
    """The versions of the requirements and of all that they need, by canonical name.

    A package that is not installed has the version that its requirement names exactly, or is left out.
    """
    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(each) for each in requirements]
    while waiting:
        each = waiting.pop()
        name, extras = canonicalize_name(each.name), frozenset(each.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            if exact := re.fullmatch(r"==([^*,]+)", str(each.specifier)):
                found[name] = exact[1]
            continue
        found[name] = package.version
        waiting += _needs(package, extras)
    return found


def outdated(lock_text: str) -> str | None:
    """The version of frostline that a lock pins, if it is not the one that runs."""
    pinned = re.search(rf"^{NAME}==(\S+)$", lock_text, re.MULTILINE)
    return pinned[1] if pinned and pinned[1] != distribution(NAME).version else None


def _needs(package: Distribution, extras: frozenset[str]) -> list[Requirement]:
    """What a package needs here, with these extras."""
    environment: Mapping[str, str] = {key: str(value) for key, value in default_environment().items()}
    lines = package.requires or []
    # Most packages have more lines for extras than for themselves, and to parse them takes most of the time.
    needs = [Requirement(line) for line in lines if extras or "extra ==" not in line]
    return [
        need
        for need in needs
        if need.marker is None or any(need.marker.evaluate({**environment, "extra": each}) for each in {"", *extras})
    ]
