"""The notebooks run from top to bottom in a kernel of their own, with tiny settings."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from beatmaps.osu_file import read_beatmap
from checkpoint import load_model
from tests.conftest import beatmap_text, random_objects

ROOT = Path(__file__).resolve().parent.parent
COLAB = ROOT / "colab"
NOTEBOOKS = sorted(COLAB.glob("*.ipynb"))


def read(name: str) -> NotebookNode:
    return nbformat.read(COLAB / f"{name}.ipynb", as_version=4)


def run(notebook: NotebookNode, folder: Path, settings: dict[str, object]) -> NotebookNode:
    """Executes a notebook in a folder, with other settings than its cell of parameters has."""
    cells = notebook.cells
    place = next(k for k, c in enumerate(cells) if "parameters" in c.metadata.get("tags", []))
    lines = [f"{name} = {value!r}" for name, value in settings.items()]
    cells.insert(place + 1, nbformat.v4.new_code_cell("\n".join(lines)))
    where = {"metadata": {"path": str(folder)}}
    return NotebookClient(notebook, timeout=300, resources=where).execute()


def outputs(notebook: NotebookNode) -> tuple[str, list[str]]:
    """What a run printed, and the kinds of what it showed."""
    shown = [output for c in notebook.cells for output in c.get("outputs", [])]
    text = "".join(output.text for output in shown if output.output_type == "stream")
    return text, [kind for output in shown for kind in output.get("data", {})]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_tidy(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    assert text == json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    nbformat.validate(nbformat.from_dict(content))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    for cell in content["cells"]:
        assert isinstance(cell["source"], list) and cell["source"][-1].strip()
        assert max(map(len, cell["source"])) <= 121
    addresses = [cell for cell in code if any("REPOSITORY = " in line for line in cell["source"])]
    assert len(addresses) == 1 and addresses[0]["metadata"]["tags"] == ["parameters"]


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("osu_diffusion_sample", "BEATMAP"),
        ("osu_diffusion_train", "BEATMAP"),
        ("osu_diffusion_train", "SONGS"),
    ],
)
def test_a_path_of_windows_can_be_pasted(name: str, setting: str) -> None:
    r"""Between plain quotation marks \U of C:\Users would be no Python."""
    (cell,) = (c for c in read(name).cells if "parameters" in c.metadata.get("tags", []))
    (line,) = (line for line in cell.source.splitlines() if line.startswith(f"{setting} = "))
    found: dict[str, str] = {}
    exec(line.replace('""', '"C:\\Users\\new map.osu"', 1), found)
    assert found[setting] == "C:\\Users\\new map.osu"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_of_code_is_explained(path: Path) -> None:
    kinds = [cell.cell_type for cell in read(path.stem).cells]
    assert kinds[0] == "markdown"
    assert ("code", "code") not in pairwise(kinds)


def test_a_map_is_remapped(tmp_path: Path) -> None:
    settings = {"STEPS": 2, "STYLE": "1180619 303335", "RESULTS": str(tmp_path)}
    done = run(read("osu_diffusion_sample"), COLAB, settings)
    text, kinds = outputs(done)
    (result,) = tmp_path.rglob("*.osu")
    assert f"wrote {result}" in text and text.rstrip().endswith(str(result))
    assert "style 1180619 303335" in read_beatmap(result).version
    assert kinds.count("image/png") == 1
    assert kinds.count("text/html") == 2  # the table of styles, and the player
    player = next(o for c in done.cells for o in c.get("outputs", []) if "iframe" in str(o))
    assert "&lt;canvas" in player.data["text/html"]


def test_a_model_is_trained(tmp_path: Path) -> None:
    tiny = {"MODEL": "DiT-nano", "STEPS": 3, "BATCH": 2, "WINDOW": 32, "RESULTS": str(tmp_path)}
    text, kinds = outputs(run(read("osu_diffusion_train"), COLAB, tiny))
    (weights,) = tmp_path.rglob("model.safetensors")
    assert load_model(weights).model.config.width == 64
    assert "step=0000003" in text and str(weights) in text
    assert len(list(tmp_path.rglob("*.osu"))) == 1
    assert kinds.count("image/png") == 2  # the losses and the remap


def test_a_command_that_fails_ends_the_notebook(tmp_path: Path) -> None:
    notebook = read("osu_diffusion_sample")
    with pytest.raises(CellExecutionError, match=r"sample.py did not finish"):
        run(notebook, COLAB, {"SEED": "no number", "RESULTS": str(tmp_path)})
    assert "argument --seed: invalid int value: 'no number'" in outputs(notebook)[0]


LIKE_COLAB = """
import shutil, sys, types

def upload():
    shutil.copy(UPLOADED, "my map.osu")
    return {"my map.osu": b""}

module = types.ModuleType("google.colab")
module.files = types.SimpleNamespace(upload=upload, download=lambda path: print("got", path))
sys.modules["google"] = sys.modules["google.colab"] = module
"""


def like_colab(name: str, folder: Path, last: str = "") -> tuple[str, Path]:
    """Runs a notebook alone in a folder, up to a cell with `last`; its text, and the project.

    Google Colab's buttons for files are stood in for: a map called Mine is uploaded.
    """
    map_file = folder / "elsewhere.osu"
    map_file.write_text(beatmap_text(random_objects(0, 40), title="Mine"), encoding="utf-8")
    notebook = read(name)
    end = next(k for k, c in enumerate(notebook.cells, 1) if last in c.source) if last else None
    notebook.cells = notebook.cells[:end]
    notebook.cells.insert(0, nbformat.v4.new_code_cell(f"UPLOADED = {str(map_file)!r}{LIKE_COLAB}"))
    run(notebook, folder, {"REPOSITORY": str(ROOT), "STEPS": 2})
    return outputs(notebook)[0], folder.resolve() / "osu-diffusion"


needs_checkout = pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="this is no checkout that could be cloned"
)


@needs_checkout
def test_alone_the_notebook_fetches_the_project_and_asks_for_a_map(tmp_path: Path) -> None:
    text, project = like_colab("osu_diffusion_sample", tmp_path)
    assert f"The project is in {project}" in text
    (result,) = (project / "results").rglob("*.osu")
    assert f"got {result}" in text and read_beatmap(result).title == "Mine"


@needs_checkout
def test_alone_the_notebook_of_training_packs_what_is_uploaded(tmp_path: Path) -> None:
    text, project = like_colab("osu_diffusion_train", tmp_path, last="create_dataset.py")
    assert "packed 1 new maps" in text and list(project.rglob("dataset.json"))


def test_alone_a_notebook_asks_for_the_address(tmp_path: Path) -> None:
    with pytest.raises(CellExecutionError, match="Write the project's address into REPOSITORY"):
        run(read("osu_diffusion_sample"), tmp_path, {"REPOSITORY": ""})
