from pathlib import Path

from stepwell.flows.discovery import FlowCatalog, discover

from .packages import package, write


def test_the_installed_flow_wins(tmp_path: Path) -> None:
    package(tmp_path / ".codex/flows/demo", top='description = "installed"')
    package(tmp_path / "flows/demo", top='description = "source"')
    found = discover(tmp_path)
    assert [flow.description for flow in found.flows] == ["installed"]
    assert [(each.path, each.by) for each in found.shadowed] == [
        (tmp_path / "flows/demo", tmp_path / ".codex/flows/demo")
    ]
    assert found.problems == ()


def test_a_broken_flow_blocks_no_other(tmp_path: Path) -> None:
    """Fault 2: also a broken package that would be shadowed."""
    package(tmp_path / ".codex/flows/demo")
    write(tmp_path / "flows/demo/flow.toml", 'name = "demo"\n')
    write(tmp_path / "flows/bad/flow.toml", "not toml")
    package(tmp_path / "flows/good", name="good")
    found = discover(tmp_path)
    assert [flow.name for flow in found.flows] == ["demo", "good"]
    assert [problem.path.parent.name for problem in found.problems] == ["bad", "demo"]
    assert all(problem.reason and problem.hint for problem in found.problems)


def test_only_real_directories_in_code_unit_order(tmp_path: Path) -> None:
    for name in ["b", "B", "a\U0001f600", "a\uff00"]:
        package(tmp_path / "flows" / name, name=name)
    package(tmp_path / "elsewhere", name="linked")
    (tmp_path / "flows/link").symlink_to(tmp_path / "elsewhere")
    write(tmp_path / "flows/file", "")
    (tmp_path / "flows/empty").mkdir()
    found = discover(tmp_path)
    assert [flow.name for flow in found.flows] == ["B", "a\U0001f600", "a\uff00", "b"]
    assert found.problems == ()


def test_missing_roots_are_empty_and_given_ones_are_used(tmp_path: Path) -> None:
    assert discover(tmp_path).flows == ()
    package(tmp_path / "own/demo")
    assert [flow.name for flow in discover(tmp_path, [Path("own"), tmp_path / "own"]).flows] == ["demo"]
    assert discover(tmp_path, [Path("own"), Path("own")]).shadowed == ()


def test_a_catalog_reads_only_what_changed(tmp_path: Path) -> None:
    root = package(tmp_path / "flows/demo")
    catalog = FlowCatalog()
    (first,) = catalog.discover(tmp_path).flows
    assert catalog.discover(tmp_path).flows[0] is first
    package(root, name="other")
    assert catalog.discover(tmp_path).flows[0].name == "other"
    package(root, "steps = 1")
    assert catalog.discover(tmp_path).flows == ()
    package(root)
    assert catalog.discover(tmp_path).flows[0] == first


def test_a_refused_package_is_looked_at_again(tmp_path: Path) -> None:
    root = package(tmp_path / "flows/demo")
    (root / "exec/hello.py").rename(root / "exec/later.py")
    catalog = FlowCatalog()
    assert len(catalog.discover(tmp_path).problems) == 1
    (root / "exec/later.py").rename(root / "exec/hello.py")
    assert catalog.discover(tmp_path).problems == ()


def test_a_dangling_manifest_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "flows/demo").mkdir(parents=True)
    (tmp_path / "flows/demo/flow.toml").symlink_to("nowhere")
    (problem,) = discover(tmp_path).problems
    assert "cannot be read" in problem.reason
