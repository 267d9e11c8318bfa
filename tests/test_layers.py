"""Who imports whom: downward only, and the islands import neither configs nor each other."""

import ast
import pathlib

PACKAGE = pathlib.Path(__file__).parent.parent / "specdiff_jax"
ROWS = [
    {"wheels", "contrastive", "provenance", "meshes"},
    {"audio", "diffusion", "models", "text", "evaluation"},
    {"workers", "embedders", "weights", "logs", "roofline", "compiler"},
    {"aside"},
    {
        "sources",
        "splits",
        "state",
        "metrics",
        "health",
        "pictures",
        "fields",
        "ranges",
        "json_lines",
        "judge",
        "finetuning",
        "labels",
        "label_reader",
        "processes",
        "profiling",
        "spread",
    },
    {"cache", "checkpoints", "optimizers", "scores"},
    {"data", "sampling", "text_features", "charts", "workdir", "edits", "collection"},
    {"conditions", "pages", "vector_index", "song_crops"},
    {"build", "prompts", "listening", "tags", "tags_page"},
    {
        "doctor",
        "sidecars",
        "fidelity",
        "evaluation_page",
        "listening_results",
        "search_page",
    },
    {"prepare", "listening_report"},
    {"trained"},
    {"pretrained", "export", "trunk", "unused"},
    {"run"},
    {"preflight", "train", "sample", "reference", "report", "backbone"},
    {"best", "tag_rules", "embed_rules"},
    {"tagging", "embedding"},
    {"trained_embedding"},
    {"index"},
    {"search"},
    {"tag_predict", "replay", "studio", "controls", "denoising"},
    {"demo", "material", "evaluation_clips", "tag", "embed"},
    {"evaluate"},
    {"sweep"},
    {"main"},
]
ROW_OF = {name: index for index, row in enumerate(ROWS) for name in row}


def imports(path):
    """(module, names) of every import of a file, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module, tuple(alias.name for alias in node.names)


def rooms(module, names):
    """The rooms of the package that an import reaches."""
    if module == "specdiff_jax":
        return set(names)
    return {module.split(".")[1]} if module.startswith("specdiff_jax.") else set()


def files():
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != "__init__":
            yield path, room


def test_every_room_has_a_row():
    assert {room for _, room in files()} == set(ROW_OF)


def test_imports_go_downward_only():
    wrong = [
        f"{path.name} imports {target}"
        for path, room in files()
        for module, names in imports(path)
        for target in rooms(module, names) - {room}
        if ROW_OF[target] >= ROW_OF[room]
    ]
    assert not wrong


def test_configs_and_flags_stay_above_the_first_rows():
    wrong = [
        f"{path.name} imports {module}"
        for path, room in files()
        for module, _ in imports(path)
        if ROW_OF[room] < ROW_OF["build"] and module.split(".")[0] in ("ml_collections", "absl")
    ]
    assert not wrong


def test_flax_lives_in_models_and_state_alone():
    users = {room for _, room in files() for module, _ in imports(_) if module.startswith("flax")}
    assert users == {"models", "state"}


def test_files_have_one_job_s_length():
    long = {path.name: n for path, _ in files() if (n := len(path.read_text().splitlines())) > 300}
    assert not long
