"""What users of other Pythons and incomplete installations are told, in processes of their own."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from conventions import requirements_check

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("sample", "app", "train", "create_dataset", "evaluate", "preview", "benchmark")


def run_faked(faking: str, script: str = "preview") -> subprocess.CompletedProcess[str]:
    """`python SCRIPT.py --help` after the statements of `faking`."""
    code = f"import sys, runpy; sys.argv = ['x', '--help']; sys.path.insert(0, {str(ROOT)!r})\n"
    code += f"{faking}\nrunpy.run_path({str(ROOT / script) + '.py'!r}, run_name='__main__')"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


def fake_version(package: str, version: str) -> str:
    """Statements after which a package says that it has that version."""
    return (
        "import importlib.metadata as m; real = m.version\n"
        f"m.version = lambda name: {version!r} if name == {package!r} else real(name)"
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_import_the_check_first_and_old_pythons_can_parse_both(script: str) -> None:
    for name in (script, "conventions/__init__", "conventions/requirements_check"):
        text = (ROOT / f"{name}.py").read_text(encoding="utf-8")
        tree = ast.parse(text, feature_version=(3, 8))
    tree = ast.parse((ROOT / f"{script}.py").read_text(encoding="utf-8"))
    first = next(node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
    assert ast.unparse(first) == "from conventions import requirements_check"


@pytest.mark.parametrize(
    ("flags", "rank", "said"),
    [([], None, True), ([], "0", True), ([], "1", False), (["--help"], None, False)],
)
def test_one_process_says_that_it_has_begun(
    flags: list[str],
    rank: str | None,
    said: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["sample.py", *flags])
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    requirements_check.announce()
    out, err = capsys.readouterr()
    assert (out, err) == ("", "osu-diffusion is starting ...\n" if said else "")


def test_the_check_itself_imports_the_standard_library_alone() -> None:
    tree = ast.parse((ROOT / "conventions" / "requirements_check.py").read_text(encoding="utf-8"))
    names = [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names)


def test_an_old_python_says_so() -> None:
    ran = run_faked("sys.version_info = (3, 10, 4, 'final', 0)")
    assert ran.returncode == 2 and ran.stdout == ""
    assert ran.stderr.startswith("error: Python 3.10.4 is too old") and ran.stderr.count("\n") == 1


def test_a_newer_python_is_warned_of_and_goes_on() -> None:
    newer = "real = sys.version_info; sys.version_info = (3, 14, 0, 'final', 0)"
    ran = run_faked(f"{newer}; from conventions import requirements_check; sys.version_info = real")
    assert ran.returncode == 0 and "usage:" in ran.stdout
    assert ran.stderr.startswith("warning: Python 3.14.0 is newer") and ran.stderr.count("\n") == 1


@pytest.mark.parametrize("version", ["2.9.1+cpu", "1.13"])
def test_an_old_torch_says_so(version: str) -> None:
    ran = run_faked(fake_version("torch", version))
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"error: torch {version} is too old")
    assert "2.10 or newer: run python -m pip install -r requirements.txt" in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("version", ["2.10", "2.10.0", "2.14.1+cu130", "3.0.0a0"])
def test_a_new_torch_is_welcome(version: str) -> None:
    ran = run_faked(fake_version("torch", version))
    assert ran.returncode == 0 and ran.stderr == ""


@pytest.mark.parametrize(
    ("module", "package"), [("numpy", "numpy"), ("PIL", "pillow"), ("tqdm", "tqdm")]
)
def test_a_missing_package_says_how_to_get_it(module: str, package: str) -> None:
    absent = (
        f"m.version = lambda name, real=m.version: real('absent' if name == {package!r} else name)"
    )
    faking = f"import importlib.metadata as m; {absent}; sys.modules[{module!r}] = None"
    ran = run_faked(faking)
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"error: the package {package} is not installed")
    assert "python -m pip install -r requirements.txt" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_packages_of_development_are_in_their_own_file() -> None:
    assert "-r requirements-dev.txt" in requirements_check.missing_problem("sklearn")
    assert "-r requirements.txt" in requirements_check.missing_problem("slider")
    assert requirements_check.missing_problem("a_bug") == ""
    assert requirements_check.missing_problem("torch.no_such_part") == ""


def test_a_bug_keeps_its_traceback() -> None:
    ran = run_faked("from conventions import requirements_check; import no_such_module")
    assert ran.returncode == 1 and "Traceback" in ran.stderr
    assert "No module named 'no_such_module'" in ran.stderr


def test_every_requirement_is_understood() -> None:
    for file in ROOT.glob("requirements*.txt"):
        lines = file.read_text(encoding="utf-8").split("\n")
        names = [re.split("[>=<]", line)[0] for line in lines if line and line[0] not in "-#"]
        assert list(requirements_check.required_packages(file)) == names


def test_the_versions_are_those_of_the_linters_and_the_readme() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    oldest = ".".join(map(str, requirements_check.OLDEST_PYTHON))
    assert settings["tool"]["mypy"]["python_version"] == oldest
    newest = ".".join(map(str, requirements_check.NEWEST_TESTED_PYTHON))
    assert f"Python {oldest}, 3.12 or {newest}" in (ROOT / "README.md").read_text(encoding="utf-8")
