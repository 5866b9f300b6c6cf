"""Every command in README.md and docs/ is run here, on made-up maps with tiny settings.

A command is a line of a fenced `sh` block, or inline code that begins as one. They are run in
their order, in one folder, because they build on each other as they do for a reader: an animation
compares a map that an earlier command wrote. So a single one can be run with all before it only.
"""

import re
import shlex
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import flag_tables
import pytest

from sampling import style
from tests.conftest import beatmap_text, random_objects, run_command
from tests.osu_diffusion_v2 import write_folder

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTES = sorted((ROOT / "docs" / "notes").glob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
PROGRAMS = ("python ", "torchrun ")

NOT_RUN = {
    "python -m pip install -r requirements.txt": "the CI script does, in a fresh environment",
    "python -m pip install -r requirements-dev.txt": "the CI script does, in a fresh environment",
    "python -m pip install uv": "wants a network",
    "python -m uv pip install --torch-backend=auto -r requirements.txt": "wants a network",
    "python -m venv .venv": "the CI script makes one",
    "python -m pip install notebook": "test_notebooks.py executes the notebooks without Jupyter",
    "python -m notebook colab/osu_diffusion_sample.ipynb": "test_notebooks.py executes it",
    "python -m pip install -r requirements-app.txt": "requirements-dev.txt includes it",
    "python app.py": "test_in_browser.py does, in a browser",
    "python -m pytest": "runs this",
    'python testing/style_test.py "C:/osu/Songs" --train "C:/osu/Songs" --output style.json': (
        "wants maps that the model was trained on; test_style.py tests what it computes"
    ),
    'python -m pip install "huggingface_hub>=1.0"': "requirements-dev.txt includes it",
    "python sample.py --ckpt hf:owner/name --output results/shared": "test_hub.py loads one",
    'python sample.py --ckpt "hf:owner/name@v2" --output results/shared': "test_hub.py loads one",
    'python testing/usual_values.py "C:/osu/Songs" --output results/usual.json': (
        "wants some hundred maps; test_usual_values.py makes do with three"
    ),
    "ruff check .": "the CI script does",
    "ruff format --check .": "the CI script does",
    "mypy .": "the CI script does",
}
"""Commands that are not run, with the reasons."""

INSTEAD = {"C:/osu/Songs": "Songs", "DiT-XS": "DiT-nano", "DiT-B": "DiT-nano"}
"""What stands in the commands' arguments instead: a made-up folder, the smallest network."""

FASTER = {
    "sample.py": "--num-sampling-steps 2 --device cpu",
    "evaluate.py": "--limit 1 --num-sampling-steps 2 --device cpu",
    "preview.py": "--length 200",
    "create_dataset.py": "--num-workers 1",
    "train.py": "--seq-len 32 --global-batch-size 2 --max-steps 3 --log-every 1 --device cpu",
    "train.py --resume": "--max-steps 5",
    "benchmark.py sample": "--lengths 60 --steps 1 --repeats 1 --limit 1 --threads 1 --device cpu",
    "benchmark.py gpu": "--tiny --sections device --device cpu",
    "benchmark.py data": "--seq-len 32 --global-batch-size 2 --seconds 0.1",
    "benchmark.py --made-up": "--made-up 30 --points 50",
    "benchmark.py train": "--seq-len 32 --global-batch-size 2 --steps 1 --device cpu",
    "testing/create_beatmap_dataframe.py": "--num-workers 1",
    "testing/embedding_svm.py": "--permutations 1 --tags 1 --folds 2 --min-songs 40",
    "testing/jittered_pattern.py": "--patterns 1 --copies 1 --num-sampling-steps 2 --sigma 20",
    "testing/toy_benchmark.py": "--patterns 1 --num-predictions 1 --num-sampling-steps 1",
}
"""Flags that are appended, by script and a word of the command: of equal ones the last counts."""


@dataclass(frozen=True)
class QuickLearning(style.Learning):
    """A style learnt in no time."""

    steps: int = 1
    windows: int = 2
    candidates: int = 4


def commands_of(document: Path) -> list[str]:
    """The commands of a page, in its order."""
    text = document.read_text(encoding="utf-8")
    found: list[tuple[int, str]] = []
    for fence in FENCE.finditer(text):
        lines = fence[2].splitlines() if fence[1] == "sh" else []
        found += [(fence.start(), line) for line in lines if line]
    blank = FENCE.sub(lambda fence: " " * len(fence[0]), text)
    found += [(m.start(), m[1]) for m in INLINE.finditer(blank) if m[1].startswith(PROGRAMS)]
    return [command for _, command in sorted(found, key=lambda entry: entry[0])]


COMMANDS = list(dict.fromkeys(c for document in DOCUMENTS for c in commands_of(document)))


def write_song(folder: Path, name: str, number: int) -> Path:
    """A folder of a song with one made-up difficulty."""
    folder.mkdir(parents=True)
    text = beatmap_text(random_objects(number, 40), beatmap_id=number, set_id=number + 10)
    text = text.replace("Creator:Mapper", f"Creator:Mapper {number}")
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.fixture(scope="module")
def place(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder of all commands, with what they name in it."""
    from benchmarks.reference import NUM_CLASSES
    from benchmarks.sampling import write_reference_checkpoint
    from datasets.class_tables import save_beatmap_idx

    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(ROOT / "example", folder / "example")
    songs = folder / "Songs"
    first = write_song(songs / "123 Artist - Title", "Artist - Title (Mapper) [Insane].osu", 101)
    write_song(songs / "456 Artist - Other", "Artist - Other (Mapper) [Hard].osu", 102)
    write_song(songs / "789 Artist - Third", "Artist - Third (Mapper) [Easy].osu", 103)
    with zipfile.ZipFile(folder / "123 Artist - Title.osz", "w") as archive:
        for version in ("Insane", "Hard"):
            text = first.read_text(encoding="utf-8").replace("Version:Normal", f"Version:{version}")
            archive.writestr(f"Artist - Title (Mapper) [{version}].osu", text)
    (folder / "beatmap_users.json").write_text('{"101": 7, "102": 7, "103": 7}', encoding="utf-8")
    words = "".join(f"{number},clean\n" for number in (101, 102, 103))
    (folder / "beatmap_descriptors.csv").write_text(words, encoding="utf-8")
    (folder / "no.txt").write_text("Somebody else\n", encoding="utf-8")
    (folder / "checkpoints").mkdir()
    bundled = folder / "checkpoints" / "osu-diffusion-xs.safetensors"
    shutil.copy(trained / "model.safetensors", bundled)
    write_reference_checkpoint(folder / "DiT-nano-00700000.pt", "DiT-nano")
    write_folder(folder / "osu-diffusion-v2")
    save_beatmap_idx(folder / "beatmap_idx.pickle", {1180619 + k: k for k in range(NUM_CLASSES)})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # The page of flags that is written must not be the project's own.
        (folder / "docs").mkdir()
        patch.setattr(flag_tables, "ROOT", folder)
        patch.setattr(flag_tables, "PAGE", folder / "docs" / "flags.md")
        patch.setattr(style, "Learning", QuickLearning)
        yield folder


def faster(script: str, arguments: list[str]) -> list[str]:
    """The arguments with those of `INSTEAD` and `FASTER`."""
    for text, other in INSTEAD.items():
        arguments = [argument.replace(text, other) for argument in arguments]
    if "--help" in arguments:
        return arguments
    more: list[str] = []
    for key, flags in FASTER.items():
        name, *words = key.split()
        if name == script and set(words) <= set(arguments):
            more += flags.split()
    return arguments + more


def run_torchrun(arguments: list[str]) -> None:
    """Only reads the command line, as torchrun and the script would."""
    from torch.distributed.run import get_args_parser

    from sampling.flags import request_from
    from training.flags import training_options

    launched = get_args_parser().parse_args(arguments)
    name = Path(launched.training_script).stem
    args = import_module(name).make_parser().parse_args(launched.training_script_args)
    {"train": training_options, "sample": request_from}[name](args)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_runs(command: str, place: Path) -> None:
    if command in NOT_RUN:
        pytest.skip(NOT_RUN[command])
    program, first, *arguments = shlex.split(command)
    if program == "torchrun":
        run_torchrun([first, *arguments])
        return
    assert program == "python"
    if first == "-c":
        exec(arguments[0], {})
        return
    assert (ROOT / first).is_file()
    module = import_module(Path(first).stem)
    assert run_command(module.main, *faster(first, arguments)) == 0


def test_what_is_not_run_is_still_there() -> None:
    assert set(NOT_RUN) <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_works_in_every_terminal(command: str) -> None:
    """PowerShell, cmd and sh read it alike: no other quotes, escapes, variables, joined commands.

    A comma outside quotes is a list to PowerShell, ! in them history to bash, * a name to sh only.
    """
    outside = re.sub(r'"[^"]*"', "", command)
    assert re.fullmatch(r"[\w ./:=+-]+", outside), outside
    for quoted in re.findall(r'"([^"]*)"', command):
        assert not set(quoted) & set("\\$`!%'^"), quoted


def test_the_pages_have_no_other_code() -> None:
    for document in DOCUMENTS:
        languages = {match[1] for match in FENCE.finditer(document.read_text(encoding="utf-8"))}
        assert languages <= {"sh", "mermaid", "text"}, document.name


# --- flags, links -------------------------------------------------------------------------------


def all_flags() -> set[str]:
    """The names of all flags of all commands."""
    parsers = [make_parser() for make_parser in flag_tables.COMMANDS.values()]
    parsers += [part for parser in parsers for part in flag_tables.subcommands(parser).values()]
    known = {name for p in parsers for action in p._actions for name in action.option_strings}
    for script in (ROOT / "testing").glob("*.py"):  # the analysis scripts have no make_parser
        if not script.name.startswith("test_"):
            known |= set(re.findall(r'"(--[a-z-]+)"', script.read_text(encoding="utf-8")))
    return known


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_flags_in_the_text_exist(document: Path) -> None:
    known = all_flags()
    for code in INLINE.findall(document.read_text(encoding="utf-8")):
        if code.startswith("--"):
            names = [part for part in shlex.split(code) if part.startswith("--")]
            assert set(names) <= known | {"--no-"}, code


def test_rows_of_flags_of_the_guide_are_understood() -> None:
    from sampling.flags import remap_parser, request_from

    text = (ROOT / "docs" / "remapping.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+ \| `(--[^`]+)`", text, re.MULTILINE)
    assert len(rows) > 20
    for flags in rows:
        request_from(remap_parser().parse_args(shlex.split(flags)))


def anchors(document: Path) -> set[str]:
    """The names by which links reach a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", [*DOCUMENTS, *NOTES], ids=lambda page: page.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        page = document.parent / name if name else document
        assert page.is_file(), target
        assert not anchor or anchor in anchors(page), target


# --- notes --------------------------------------------------------------------------------------


def test_the_notes_are_listed() -> None:
    """Their first page links to all others."""
    summary = (ROOT / "docs" / "notes" / "README.md").read_text(encoding="utf-8")
    for page in NOTES:
        assert page.name == "README.md" or f"| [{page.stem}]({page.name}) |" in summary, page.name


def test_sections_of_the_notes_begin_with_a_date_and_a_verdict() -> None:
    for page in NOTES:
        if page.name == "README.md":
            continue
        headings = re.findall(r"^##+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert headings, page.name
        for heading in headings:
            assert re.match(r"20\d\d-\d\d(-\d\d)?( and \d\d)?: \S", heading), heading
