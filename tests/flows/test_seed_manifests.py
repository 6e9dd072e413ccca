"""Fixture manifests in the seed's form (spec 1.1 and 6.4): every key that its packages use loads as it is."""

from pathlib import Path

import pytest

from stepwell.flows.manifest import load_flow

from .packages import write

BINDINGS = """
name = "fixture-bindings"
version = 1
description = "Fixture: regenerate bindings."

[config]
package_name = "@example/package"
commit = true
push = false
publish = false

[guidance]
skills = []

[[steps]]
name = "regenerate"
runner = "bun"
script = "exec/regenerate.ts"
timeout_ms = 1800000

[steps.trigger]
type = "upstream.release"
schema = "schemas/upstream-release.schema.json"
"""
FORK = """
name = "fixture-fork"
version = 1
description = "Fixture: rebase a patch stack."

[config]
codex_repo_env = "PEEZY_CODEX_REPO"
squash_patch_stack = true

[guidance]
skills = ["fixture-skill"]

[[steps]]
name = "rebase"
runner = "code-mode"
script = "exec/update.code-mode.js"
timeout_ms = 3600000

[steps.trigger]
type = "upstream.release"
schema = "schemas/upstream-release.schema.json"
"""


@pytest.mark.parametrize("text", [BINDINGS, FORK], ids=["bun", "code-mode"])
def test_a_package_of_the_seed_loads(tmp_path: Path, text: str) -> None:
    write(tmp_path / "flow.toml", text)
    for script in ("exec/regenerate.ts", "exec/update.code-mode.js"):
        write(tmp_path / script, "")
    flow = load_flow(tmp_path)
    assert flow.config
    assert flow.steps[0].timeout_ms >= 1_800_000
    assert flow.steps[0].trigger is not None
