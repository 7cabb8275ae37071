"""The treebank: its own format, from a folder and a zip; anything else is an error that says where."""

import zipfile

import pytest

from rankscope.errors import InputError
from rankscope.tasks.sentiment import read_treebank
from rankscope.tasks.sentiment.readers import parse_tree

GOOD = "(3 (2 It) (4 (4 (2 's) (4 good)) (2 .)))"
BAD = "(1 (2 Not) (1 (2 -LRB-) (1 bad)))"
NEUTRAL = "(2 (2 A) (2 film))"


def write(folder, train=f"{GOOD}\n{NEUTRAL}\r\n\n{BAD}\n", **others):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "dev", "test"):
        text = others.get(name, train)
        (folder / f"{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@pytest.mark.parametrize("inner", ["", "trees"])
def test_a_folder(tmp_path, inner):
    write(tmp_path / inner, dev=f"{BAD}\n")
    splits = read_treebank(tmp_path)
    assert splits["train"].sentences == (("it", "'s", "good", "."), ("not", "(", "bad"))
    assert splits["train"].labels == (1, 0)
    assert splits["dev"].labels == (0,)
    assert set(splits) == {"train", "dev", "test"}


def test_a_zip_gives_the_same(tmp_path):
    folder = write(tmp_path / "trees")
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("__MACOSX/trees/._train.txt", "junk")
        for path in folder.iterdir():
            archive.write(path, f"trees/{path.name}")
    assert read_treebank(tmp_path / "t.zip") == read_treebank(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ends with 0 of them open"),
        ("(3 (2 It)", "ends with 1 of them open"),
        ("(3 (2 It) (4 good)))", r"got '\)' outside of it at character 20"),
        ("(3 good) (2 it)", r"got '\(' outside of it"),
        ("good", "got 'good' outside of it"),
        ("(5 good)", "a label must be one of 0, 1, 2, 3, 4, got '5'"),
        ("(positive good)", "a label must be one of"),
        ("(3)", "a node must have a label and a word or nodes"),
        ("()", "a node must have a label and a word or nodes"),
        ("((2 it) (3 good))", r"a node must have a label, then"),
        ("(3 very good)", "one word or only nodes, got 'good' at character 9"),
        ("(3 (2 it) good)", "one word or only nodes"),
        ("(3 it (3 good))", "a label, then a word or nodes"),
    ],
)
def test_malformed_trees(text, message):
    with pytest.raises(InputError, match=message):
        parse_tree(text)


def test_a_message_names_file_and_line(tmp_path):
    write(tmp_path, dev=f"{GOOD}\n(3 (2 It)\n")
    with pytest.raises(InputError, match=r"dev\.txt, line 2: must be one tree"):
        read_treebank(tmp_path)


def test_depth_is_no_matter():
    deep = "(3 " * 100_000 + "good" + ")" * 100_000
    assert parse_tree(deep.replace("(3 good", "(4 good")) == (3, ("good",))


def test_encodings_and_lengths_are_checked(tmp_path, monkeypatch):
    write(tmp_path, train="(3 (2 caf\u00e9) (3 good))\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"train\.txt, line 1: must be UTF-8, got the byte 0xe9"):
        read_treebank(tmp_path)
    monkeypatch.setattr("rankscope.tasks.sentiment.readers.LONGEST_LINE", 60)
    write(tmp_path, train=f"{GOOD}\n(3 {'(2 it) ' * 20})\n")
    with pytest.raises(InputError, match="line 2: must have at most 60 bytes"):
        read_treebank(tmp_path)


def test_only_neutral_sentences_are_none(tmp_path):
    write(tmp_path, dev=NEUTRAL)
    with pytest.raises(InputError, match="not all neutral"):
        read_treebank(tmp_path)


def test_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_treebank(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"must hold train\.txt or trees/train\.txt"):
        read_treebank(tmp_path)
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("readme", "nothing")
    with pytest.raises(InputError, match=r"must hold train\.txt or trees/train\.txt"):
        read_treebank(tmp_path / "t.zip")


@pytest.mark.parametrize("name", ["../train.txt", "/etc/train.txt", "trees\\..\\..\\x", "C:\\x"])
def test_a_zip_that_leads_outside_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("trees/train.txt", GOOD)
        archive.writestr(name, GOOD)
    with pytest.raises(InputError, match="only paths inside it"):
        read_treebank(tmp_path / "t.zip")


def test_a_damaged_zip(tmp_path):
    folder = write(tmp_path / "trees", train=f"{GOOD}\n" * 500)
    with zipfile.ZipFile(tmp_path / "t.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, f"trees/{path.name}")
    whole = (tmp_path / "t.zip").read_bytes()
    for damaged in (whole[:200], whole[:60] + bytes(20) + whole[80:], b"not a zip"):
        (tmp_path / "t.zip").write_bytes(damaged)
        with pytest.raises(InputError, match="must be a complete archive"):
            read_treebank(tmp_path / "t.zip")


def test_a_zip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("rankscope.tasks.sentiment.archives.MOST_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "t.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for split in ("train", "dev", "test"):
            archive.writestr(f"trees/{split}.txt", " " * 1_000_000)
    with pytest.raises(InputError, match="at most 10000 bytes"):
        read_treebank(tmp_path / "t.zip")


def test_an_archive_with_names_in_no_encoding_is_refused(tmp_path):
    """Names that say they are UTF-8 and are not raise an error that no archive's own is."""
    path = tmp_path / "trees.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("trees/tr\u00e4in.txt", "(3 good)")
    path.write_bytes(path.read_bytes().replace("\u00e4".encode(), b"\xb3\xd2"))
    with pytest.raises(InputError, match="must be a complete archive, got a damaged one"):
        read_treebank(path)
