"""Who may import whom: floors of rooms, and islands that need nothing of the package."""

import ast
import pathlib

PACKAGE = pathlib.Path(__file__).parents[1] / "specdiff_jax"
RULE = (  # a room imports rooms of lower floors only
    "runtime, audio, diffusion < models, reports < config < conditioning < data < training"
    " < sampling < evaluation < downstream < main"
)
FLOOR = {room: i for i, floor in enumerate(RULE.split(" < ")) for room in floor.split(", ")}
ISLANDS = ("audio", "diffusion", "evaluation/metrics")
FLAX = ("models", "training/train_state.py")


def files():
    """(path below the package, its room, the names that it imports) of every file."""
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE)
        if place.name != "__init__.py" or len(place.parts) > 1:
            yield place.as_posix(), place.parts[0].removesuffix(".py"), set(imports(path))


def imports(path):
    """The dotted name of everything a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms(names):
    """The rooms of the package among imported names."""
    own = (name.split(".") for name in names if name.startswith("specdiff_jax."))
    return {parts[1] for parts in own} & FLOOR.keys()


def test_imports_go_down_only():
    wrong = [
        f"{place} imports {target}"
        for place, room, names in files()
        for target in rooms(names) - {room}
        if FLOOR[target] >= FLOOR[room]
    ]
    assert not wrong


def test_every_room_is_in_the_rule():
    assert {room for _, room, _ in files()} == set(FLOOR)


def test_islands_import_nothing_else_of_the_package():
    wrong = [
        f"{place} imports {name}"
        for place, _, names in files()
        for island in ISLANDS
        if place.startswith(island + "/")
        for name in names
        if name.startswith("specdiff_jax.")
        and not name.startswith("specdiff_jax." + island.replace("/", "."))
    ]
    assert not wrong


def test_configs_and_flags_stay_above_config():
    wrong = [
        f"{place} imports {name}"
        for place, room, names in files()
        for name in names
        if FLOOR[room] < FLOOR["config"] and name.split(".")[0] in ("ml_collections", "absl")
    ]
    assert not wrong


def test_flax_is_imported_by_models_and_the_train_state_alone():
    users = [p for p, _, names in files() if any(n.split(".")[0] == "flax" for n in names)]
    assert not [place for place in users if not place.startswith(FLAX)]


def test_files_and_folders_are_small():
    long = {str(p): n for p in PACKAGE.rglob("*.py") if (n := p.read_text().count("\n")) > 300}
    folders = [path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__"]
    full = {str(f): n for f in folders if (n := sum(p.is_file() for p in f.iterdir())) > 13}
    assert not long and not full
    top = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(top) <= 15 and {"__init__.py", "main.py"} <= set(top)
