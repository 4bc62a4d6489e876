"""The house: a core that imports no wing, wings that import only the core, no circles, options that
stay in the scripts and in ad/options."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, write_tiny

WINGS = ("models", "sets", "pictures", "processes")
FILES = {".".join(p.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): p
         for p in (PROJECT / "ad").rglob("*.py")}


def imports(name):
    """Modules of the package that a module imports when it is imported."""
    found = set()
    for node in ast.parse(FILES[name].read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "ad":
            found |= {path if (path := f"{node.module}.{alias.name}") in FILES else node.module
                      for alias in node.names}
    return found - {"ad", name}


def room(name):
    """The wing of a module, "core" without one."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in WINGS else "core"


@pytest.mark.parametrize("name", FILES)
def test_the_core_imports_no_wing_and_wings_not_each_other(name):
    for other in imports(name):
        assert room(other) in ("core", room(name)), f"{name} imports {other}"


def test_nothing_imports_in_a_circle():
    done = set()

    def visit(name, above):
        assert name not in above, " -> ".join([*above, name])
        if name not in done:
            for other in imports(name):
                visit(other, [*above, name])
            done.add(name)
    for name in FILES:
        visit(name, [])


def test_parsed_options_stay_where_they_belong():
    for name, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and not name.startswith("ad.options"):
                taken = [a.arg for a in (*node.args.args, *node.args.kwonlyargs)]
                assert "args" not in taken, f"{name}.{node.name}"


def test_modules_and_functions_are_short():
    for path in [*FILES.values(), *PROJECT.glob("*.py")]:
        text = path.read_text()
        assert text.count("\n") <= (250 if path.parent == PROJECT else 200), path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 55, f"{path}: {node.name}"
                assert len(node.args.args) <= 9, f"{path}: {node.name}"


def test_public_functions_and_methods_have_hints():
    """Of all parameters and of what they return; nested functions may be without."""
    for path in [*FILES.values(), *PROJECT.glob("*.py")]:
        body = ast.parse(path.read_text()).body
        body += [part for node in body if isinstance(node, ast.ClassDef) for part in node.body]
        for node in body:
            if isinstance(node, ast.FunctionDef) and (
                    node.name == "__init__" or not node.name.startswith("_")):
                bare = [a.arg for a in (*node.args.args, *node.args.kwonlyargs)
                        if not a.annotation and a.arg not in ("self", "cls")]
                bare += [] if node.returns or node.name == "__init__" else ["return"]
                assert not bare, f"{path}: {node.name}: {bare}"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("house") / "data")


def test_without_the_wings_the_core_trains_and_scores(data, tmp_path):
    """As no wing imports another, each may be deleted: only its own feature is gone."""
    shutil.copytree(PROJECT / "ad", tmp_path / "ad", ignore=shutil.ignore_patterns(
        "__pycache__", *WINGS))
    for script in ("train.py", "infer.py"):
        shutil.copy(PROJECT / script, tmp_path)
    options = ("--data", data, "--category", "stripes")
    plain = ("--width", 2, "--depth", 1, "--epochs", 1, "--val-every", 1, "--error", "repaired")

    def run(script, *line):
        return subprocess.run([sys.executable, tmp_path / script, *map(str, (*options, *line))],
                              cwd=tmp_path, capture_output=True, text=True)
    result = run("train.py", *plain)
    assert result.returncode == 0, result.stderr
    result = run("infer.py")
    assert result.returncode == 0 and "AUROC" in result.stdout, result.stderr
    assert not any((tmp_path / "ad" / wing).exists() for wing in WINGS)
    assert run("infer.py", "--maps").returncode != 0, "pictures are a wing"


def test_the_package_says_which_module_it_lacks():
    import ad
    with pytest.raises(AttributeError, match="no module nothing"):
        ad.nothing
    assert Path(ad.pictures.__file__).parent.name == "pictures"
