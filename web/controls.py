"""The controls of the web page, and what using them does; `sessions` does the work."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from constraints.spacing import FACTOR_LIMITS, WITH_FACTOR
from sampling.options import STYLE_CFG_SCALE, SampleOptions
from sampling.request import RemapRequest
from web.choices import (
    can_choose_distances,
    class_table,
    find_styles,
    known_descriptors,
    known_mappers,
    vocabularies,
)
from web.display import (
    EMPTY,
    SPACINGS,
    WHOLE_MAP,
    explained,
    map_choices,
    map_updates,
    no_map,
    result_updates,
    swap,
)
from web.maps import open_map, pack_example
from web.requests import DEFAULTS, LABELS, MAX_STEPS, MAX_VARIANTS, page_request
from web.sessions import KEPT_RUNS, Sessions, Stopped

FOLDER = Path(__file__).parent / "page_files"
CSS = FOLDER / "page.css"
SUFFIXES = [".osu", ".osz"]
FACTORS = {"scale": 1.2, "snap": 120.0}
LARGEST_SEED = 2**31 - 1
LONGEST_QUEUE = 24
"""Runs that wait for the model; each takes a thread of the server."""
INTRODUCTION = """
<h1>osu-diffusion</h1>
<p>Gives every object of an osu!standard beatmap a new place. Rhythm and spacing stay.</p>
"""
PARTS_EXAMPLE = "00:00:000 - 00:30:000 -> 1\n00:30:000 - 00:45:000 -> 2"
SHOW_PLAYER = """
() => document.querySelector("#player").scrollIntoView({ behavior: "smooth", block: "nearest" })
"""
HOW_TO_PLAY = """
<p class="manners">An .osz is opened with osu!. An .osu goes into the song's folder; then press F5
in osu!'s song list.</p>
"""
MANNERS = """
<p class="manners">Results are machine-made and say so in their difficulty name and tags: leave that
in, name the mappers whose style you take, and do not submit them for ranking as your own work. Your
files are removed when you close the page, styles learnt from them when the server ends.</p>
"""


def session_of(request: gr.Request) -> str:
    """The page's session; requests without one do not come from a page of ours."""
    if not request.session_hash:
        raise gr.Error("This request does not come from a page.", print_exception=False)
    return request.session_hash


def names_address(value: object) -> bool:
    """Whether files that a page says it has uploaded are addresses, at any depth."""
    if isinstance(value, list):
        return any(map(names_address, value))
    if not isinstance(value, dict):
        return False
    path = value.get("path")
    # As Gradio tells an address from a path.
    here = isinstance(path, str) and path.startswith(("http://", "https://"))
    return here or any(map(names_address, value.values()))


def factor_update(mode: str, value: float | None = None) -> Any:
    """The field for a spacing's factor, with the usual one unless `value` is given."""
    if mode not in WITH_FACTOR:
        return gr.update(visible=False)
    return gr.update(
        value=FACTORS[mode] if value is None else value,
        label="Factor" if mode == "scale" else "px a beat",
        minimum=0.01,
        maximum=FACTOR_LIMITS[mode],
        visible=True,
    )


def cards(name: str, elem_id: str) -> gr.HTML:
    """A choice of pictures with texts, as `variant_cards` and `run_cards` make them."""
    template = (FOLDER / "cards.html").read_text(encoding="utf-8")
    return gr.HTML(
        None,
        html_template=template.replace("{{name}}", name),
        js_on_load=(FOLDER / "cards.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id=elem_id,
        cards=[],
    )


class OwnBlocks(gr.Blocks):
    """Blocks that take uploads alone: of an address Gradio's server would fetch the file."""

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], *rest: Any, **named: Any
    ) -> list[Any]:
        """What the event's function gets."""
        if names_address(inputs):
            raise gr.Error("Upload the file itself.", print_exception=False)
        found: list[Any] = await super().preprocess_data(block_fn, inputs, *rest, **named)
        return found


# --- the page -------------------------------------------------------------------------------------


class Page:
    """The page's parts, and what happens when they are used; `base` names the models."""

    def __init__(self, sessions: Sessions, example: Path, base: RemapRequest | None = None) -> None:
        self.sessions, self.example, self.base = sessions, example, base
        self.table = class_table(sessions.models.sampler)
        with OwnBlocks(
            title="osu-diffusion", analytics_enabled=False, delete_cache=(600, 6 * 3600)
        ) as self.blocks:
            gr.HTML(INTRODUCTION, elem_id="introduction")
            with gr.Row(elem_id="halves"):
                with gr.Column(scale=4, min_width=340):
                    self.build_map()
                    self.build_style()
                    self.build_settings()
                    self.build_buttons()
                with gr.Column(scale=7, min_width=340):
                    self.build_results()
            gr.HTML(MANNERS)
            self.connect_map()
            self.connect_settings()
            self.connect_run()
            self.connect_results()

    def build_map(self) -> None:
        """Which map, and which part of it."""
        self.file = gr.File(
            label="Beatmap (.osz with its song, or .osu)",
            file_types=SUFFIXES,
            height=160,
            elem_id="map",
        )
        self.use_example = gr.Button("Or take the example", size="sm", elem_id="use-example")
        self.difficulty = gr.Dropdown(
            label="Difficulty", type="value", visible=False, elem_id="difficulty"
        )
        self.summary = gr.HTML(visible=False, elem_id="summary")
        self.timeline = gr.HTML(
            WHOLE_MAP,
            container=True,
            padding=True,
            visible=False,
            html_template=(FOLDER / "timeline.html").read_text(encoding="utf-8"),
            js_on_load=(FOLDER / "timeline.js").read_text(encoding="utf-8"),
            apply_default_css=False,
            elem_id="timeline",
            times=[],
        )
        self.objects = gr.Textbox(
            "",
            label="Or only these objects, as the editor copies a selection",
            placeholder="00:12:345 (1,2,3) - ",
            visible=False,
            elem_id="objects",
        )

    def build_style(self) -> None:
        """Whose style."""
        with gr.Accordion("Style", open=False, elem_id="style"):
            self.search = gr.Textbox(
                label="Search by mapper, song or difficulty",
                placeholder="Any style",
                visible=bool(self.table),
                elem_id="search",
            )
            self.styles = gr.CheckboxGroup(
                choices=find_styles(self.table, ""),
                label="Styles that the model knows (several are mixed)",
                visible=bool(self.table),
                elem_id="styles",
            )
            self.style_files = gr.File(
                label="Or the style of other maps, learnt first",
                file_types=SUFFIXES,
                file_count="multiple",
                height=150,
                elem_id="style-files",
            )
            self.build_conditions()
            self.guidance = gr.Slider(
                1,
                4,
                value=STYLE_CFG_SCALE,
                step=0.1,
                label="Exaggerate the style",
                elem_id="guidance",
            )

    def build_conditions(self) -> None:
        """Conditions of models that have groups of them; nothing to see with others."""
        models = self.sessions.models
        tags, told = known_descriptors(models), bool(vocabularies(models))
        self.mappers = gr.Dropdown(
            known_mappers(models),
            value=[],
            multiselect=True,
            allow_custom_value=True,
            label="Mappers, by name or osu! user ID",
            visible=models.sampler.vocabulary is not None,
            elem_id="mappers",
        )
        self.descriptors, self.negative_descriptors = (
            gr.Dropdown(
                tags,
                value=[],
                multiselect=True,
                label=LABELS[name],
                info=info,
                visible=bool(tags),
                elem_id=name.replace("_", "-"),
            )
            for name, info in (
                ("descriptors", None),
                ("negative_descriptors", "Works where the style is exaggerated"),
            )
        )
        # Not as numbers: a field for those shows 0 where it is to be empty.
        with gr.Row():
            self.star_rating, self.circle_size = (
                gr.Textbox(
                    "",
                    label=LABELS[name],
                    placeholder="the map's",
                    min_width=120,
                    visible=told,
                    elem_id=name.replace("_", "-"),
                )
                for name in ("star_rating", "circle_size")
            )

    def build_settings(self) -> None:
        """How to sample."""
        usable = [
            (text, mode)
            for mode, text in SPACINGS.items()
            if mode != "free" or can_choose_distances(self.sessions.models)
        ]
        with gr.Accordion("Settings", open=False, elem_id="settings"):
            self.strength = gr.Slider(
                0, 1, value=1, step=0.05, label="Strength", info="0 changes nothing, 1 everything"
            )
            with gr.Row():
                self.spacing = gr.Dropdown(
                    usable, value="keep", label="Distances", elem_id="spacing"
                )
                self.factor = gr.Number(
                    1.0, label="Factor", visible=False, min_width=100, elem_id="factor"
                )
            self.steps = gr.Slider(
                1, MAX_STEPS, value=SampleOptions.steps, step=1, label="Steps", elem_id="steps"
            )
            self.variants = gr.Slider(
                1, MAX_VARIANTS, value=1, step=1, label="Variants", elem_id="variants"
            )
            self.seed = gr.Number(
                0,
                label="Seed",
                info="Another seed gives another map",
                precision=0,
                minimum=0,
                maximum=LARGEST_SEED,
                elem_id="seed",
            )
            self.new_seed = gr.Button("Another seed", size="sm", elem_id="new-seed")

    def build_buttons(self) -> None:
        """What starts and ends a run."""
        with gr.Column(elem_id="run"):
            with gr.Row():
                self.generate = gr.Button(
                    "Generate", variant="primary", interactive=False, elem_id="generate"
                )
                self.cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="cancel")
            self.status = gr.HTML(elem_id="status")

    def build_results(self) -> None:
        """Where the map plays, alone and beside the new one."""
        self.player = gr.HTML(EMPTY, elem_id="player", js_on_load=None)
        with gr.Column(visible=False, elem_id="results") as self.results:
            self.variant = cards("Variants: choose one as the result", "variant")
            self.facts = gr.HTML(elem_id="facts")
            with gr.Row():
                self.osu = gr.DownloadButton("Download .osu", elem_id="osu")
                self.osz = gr.DownloadButton("Download .osz", elem_id="osz")
            gr.HTML(HOW_TO_PLAY)
            self.picture = gr.Image(
                label="Before and after",
                show_label=False,
                type="filepath",
                format="png",
                interactive=False,
                buttons=["fullscreen"],
                elem_id="picture",
            )
            self.build_combining()
        self.build_history()

    def build_combining(self) -> None:
        """Parts of several variants in one result."""
        with gr.Accordion(
            "Combine parts of the variants", open=False, visible=False, elem_id="combining"
        ) as self.combining:
            self.parts = gr.Textbox(
                "",
                label="Parts: a range and a variant in each line",
                placeholder=PARTS_EXAMPLE,
                info="Around each border the nearest objects are moved until their distances are "
                "met again; the result says how many, and what remains.",
                lines=4,
                elem_id="parts",
            )
            with gr.Row():
                self.rest = gr.Dropdown(label="Everything else", type="value", elem_id="rest")
                self.combine = gr.Button("Combine", elem_id="combine")

    def build_history(self) -> None:
        """Earlier results, with what they were made by."""
        with gr.Accordion(
            f"Earlier results of this page (the last {KEPT_RUNS})",
            open=True,
            visible=False,
            elem_id="history",
        ) as self.history:
            with gr.Row():
                self.undo = gr.Button("Undo: the result before", size="sm", elem_id="undo")
                self.redo = gr.Button("Redo: the result after", size="sm", elem_id="redo")
            self.earlier = cards("One is brought back with its map and its settings", "earlier")

    # --- maps and styles --------------------------------------------------------------------------

    @property
    def map_outputs(self) -> list[Any]:
        """What shows a map."""
        shown = [self.difficulty, self.summary, self.timeline, self.objects]
        return [*shown, self.generate, self.player, self.results]

    def connect_map(self) -> None:
        """A map is dropped, taken away, the example is taken, a difficulty is chosen."""

        def show(path: str | None, chosen: int | None, request: gr.Request) -> list[Any]:
            if path is None:
                return no_map()
            self.sessions.hold(session_of(request), [Path(path)])
            with explained(path):
                return map_updates(open_map(Path(path), chosen or 0))

        def show_first(path: str | None, request: gr.Request) -> list[Any]:
            return show(path, None, request)

        def take_example() -> str:
            return str(pack_example(self.example, self.sessions.folder / "example"))

        shown: dict[str, Any] = {"outputs": self.map_outputs, "show_progress": "minimal"}
        first: dict[str, Any] = {"fn": show_first, "inputs": self.file} | shown
        for change in (self.file.upload, self.file.clear):
            change(**first).failure(
                lambda: [None, *no_map()], outputs=[self.file, *self.map_outputs]
            )
        self.use_example.click(take_example, outputs=self.file).then(**first)
        self.difficulty.input(show, [self.file, self.difficulty], **shown)

    def connect_settings(self) -> None:
        """Styles are searched or uploaded, the spacing is chosen, a seed is drawn."""

        def hold(paths: list[str] | None, request: gr.Request) -> None:
            self.sessions.hold(session_of(request), map(Path, paths or []))

        def search(query: str, picked: list[str]) -> Any:
            return gr.update(choices=find_styles(self.table, query, picked), value=picked)

        quiet: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
        self.search.input(search, [self.search, self.styles], self.styles, **quiet)
        self.style_files.upload(hold, self.style_files, **quiet)
        self.spacing.input(factor_update, self.spacing, self.factor, **quiet)
        self.new_seed.click(lambda: random.randint(0, LARGEST_SEED), outputs=self.seed, **quiet)

    # --- runs -------------------------------------------------------------------------------------

    @property
    def result_outputs(self) -> list[Any]:
        """What shows a result."""
        about = [self.results, self.variant, self.facts]
        files = [self.osu, self.osz, self.picture]
        history = [self.history, self.earlier, self.undo, self.redo]
        return [self.player, *about, *files, self.combining, self.rest, *history]

    @property
    def asked(self) -> dict[str, Any]:
        """The controls that say how a map is remapped, by their names in `DEFAULTS`."""
        return {name: getattr(self, name) for name in DEFAULTS}

    def connect_run(self) -> None:
        """A run is started, cancelled, looked at; the page is closed."""
        buttons = [self.generate, self.cancel]

        def begin(request: gr.Request) -> list[Any]:
            self.sessions.begin(session_of(request))
            return [*swap(True), ""]

        def cancel(request: gr.Request) -> Any:
            self.sessions.cancel(session_of(request))
            return gr.update(value="Cancelling …", interactive=False)

        def leave(request: gr.Request) -> None:
            self.sessions.leave(session_of(request))

        # Not with Gradio's `cancels`: a run cancelled so ends as an error, later than the page
        # says, and lets the next run begin before it has ended.
        at_once: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
        started = self.generate.click(begin, outputs=[*buttons, self.status], **at_once)
        run = started.success(
            self.remap,
            {self.file, self.difficulty, *self.asked.values()},
            [*buttons, self.status, *self.result_outputs],
            concurrency_limit=LONGEST_QUEUE,
            show_progress_on=self.status,
        )
        run.failure(lambda: swap(False), outputs=buttons, **at_once)
        self.cancel.click(cancel, outputs=self.cancel, **at_once)
        self.blocks.unload(leave)

    def connect_results(self) -> None:
        """Another variant or an earlier result is looked at, variants are combined."""

        def show_variant(k: int, request: gr.Request) -> list[Any]:
            return self.shown(request, variant=k)

        def combine(text: str, rest: int, request: gr.Request) -> list[Any]:
            with explained():
                self.sessions.combine(session_of(request), text, rest)
            return self.shown(request)

        def show_run(at: int, request: gr.Request) -> list[Any]:
            return self.restored(request, at)

        def step(by: int) -> Callable[[gr.Request], list[Any]]:
            def go(request: gr.Request) -> list[Any]:
                return self.restored(request, self.sessions.visitor(session_of(request)).at + by)

            return go

        self.facts.change(None, js=SHOW_PLAYER)
        self.variant.input(show_variant, self.variant, self.result_outputs)
        self.combine.click(combine, [self.parts, self.rest], self.result_outputs)
        restored = [self.file, *self.map_outputs[:-2], *self.restored_settings.values()]
        restored += self.result_outputs
        self.earlier.input(show_run, self.earlier, restored)
        for button, by in ((self.undo, -1), (self.redo, 1)):
            button.click(step(by), outputs=restored)

    @property
    def restored_settings(self) -> dict[str, Any]:
        """The controls that an earlier result brings back, beside what shows its map."""
        return {k: v for k, v in self.asked.items() if k not in ("timeline", "objects")}

    def shown(
        self, request: gr.Request, at: int | None = None, variant: int | None = None
    ) -> list[Any]:
        """A result as the page shows it, for `result_outputs`."""
        session = session_of(request)
        with explained():
            self.sessions.show(session, at, variant)
            return result_updates(self.sessions.visitor(session))

    def restored(self, request: gr.Request, at: int) -> list[Any]:
        """An earlier result with its map and its settings."""
        results = self.shown(request, at)
        run = self.sessions.visitor(session_of(request)).run
        assert run is not None
        with explained(run.source):
            opened = open_map(run.source, run.chosen)
        settings = DEFAULTS | dict(run.settings)
        map_shown = map_choices(opened, settings["timeline"], settings["objects"])
        values = {name: gr.update(value=settings[name]) for name in self.restored_settings}
        found = find_styles(self.table, "", settings["styles"])
        values["styles"] = gr.update(choices=found, value=settings["styles"])
        values["factor"] = factor_update(settings["spacing"], settings["factor"])
        return [str(run.source), *map_shown, *values.values(), *results]

    def remap(
        self,
        values: dict[Any, Any],
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how Gradio is asked for one)
    ) -> Any:
        """Runs what the page asks for, with progress; a cancelled run changes nothing."""
        path, settings = values[self.file], {k: values[c] for k, c in self.asked.items()}
        session = session_of(request)

        def report(what: str, done: int, total: int) -> None:
            step = f": step {min(done + 1, total)} of {total}" if total > 1 else ""
            progress(done / total, desc=f"{what}{step}")

        with explained(path, *(settings["style_files"] or [])):
            if path is None:
                raise ValueError("Drop a beatmap first.")
            asked = page_request(self.base, **settings)
            chosen = values[self.difficulty] or 0
            try:
                self.sessions.remap(session, Path(path), asked, report, chosen, settings)
            except Stopped:
                return [*swap(False), "Cancelled.", *(gr.skip() for _ in self.result_outputs)]
        return [*swap(False), "", *self.shown(request)]
