"""The constraints of the job that installs the oldest allowed set are the lower bounds of pyproject.toml."""

import sys

import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib")
def test_the_oldest_set_is_the_lower_bounds():
    import tomllib

    told = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    bounds = {}
    for requirement in map(Requirement, told):
        lowest = [one.version for one in requirement.specifier if one.operator == ">="]
        assert len(lowest) == 1, f"{requirement} has no lower bound"
        bounds[canonicalize_name(requirement.name)] = Version(lowest[0])
    lines = (REPOSITORY / ".ci" / "oldest.txt").read_text().splitlines()
    pinned = {
        canonicalize_name(name): Version(version)
        for name, version in (line.split("==") for line in lines if line and not line.startswith("#"))
    }
    assert pinned == bounds
