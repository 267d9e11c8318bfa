"""Files are written whole or not at all, and hashed as hashlib does."""

import hashlib

import pytest

from specdiff_jax.runtime import files, logs
from specdiff_jax.runtime.text import first_line, mark_unprintable, one_line


def test_atomic_path_failure_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "report.json"
    files.write_json(path, {"step": 1})
    with pytest.raises(OSError, match="disk full"), files.atomic_path(path) as partial:
        partial.write_text("half")
        raise OSError("disk full")
    assert files.read_json(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_write_json_is_left_to_the_first_process(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "muted", True)
    files.write_json(tmp_path / "report.json", {})
    assert files.read_json(tmp_path / "report.json") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'{"a": 1}'])
def test_read_json_error_is_one_line_that_names_the_file(tmp_path, content):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        files.read_json(path, lambda data: data["b"])
    assert str(caught.value).startswith(f"{tmp_path.name}/bad.json: ")
    assert "\n" not in str(caught.value)


def test_write_csv_has_every_key_as_a_column(tmp_path):
    files.write_csv(tmp_path / "rows.csv", [{"a": 1}, {"b": "x,y", "a": 2}])
    assert (tmp_path / "rows.csv").read_bytes() == b'a,b\r\n1,\r\n2,"x,y"\r\n'


def test_hash_file_equals_hashlib(tmp_path):
    content = bytes(range(256)) * 5000
    files.write_bytes(tmp_path / "pcm", content)
    assert files.hash_file(tmp_path / "pcm") == hashlib.sha256(content).hexdigest()


def test_foreign_text_fits_on_one_printable_line():
    assert one_line("a\r\n b\t\u2028c ") == "a b c"
    assert first_line(ValueError("one\ntwo")) == "one" and first_line(KeyError()) == "KeyError"
    assert mark_unprintable("a\x1b[2J\ud800") == "a\ufffd[2J\ufffd"
