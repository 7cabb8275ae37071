"""Every format gives the same tensors; what is damaged, hostile or unclear is refused, and nothing in it runs."""

import json
import pickle
import zipfile

import pytest
import torch
from checkpoint_cases import Hostile, changed, transformer, write_shards
from safetensors.torch import save_file

import rankscope as rs
from rankscope.checkpoints import open_checkpoint
from rankscope.checkpoints.source import in_order


@pytest.fixture
def state():
    return transformer()


def as_safetensors(folder, state):
    save_file(state, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def as_torch(folder, state):
    torch.save(state, folder / "weights.pt")
    return folder / "weights.pt"


def as_training_checkpoint(folder, state):
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3, 3)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"epoch": 3, "step": torch.tensor(7), "optimizer": optimizer, "state_dict": state}, folder / "last.ckpt")
    return folder / "last.ckpt"


def as_nested_twice(folder, state):
    torch.save({"model": {"state_dict": state}, "ema": {"decay": 0.9}}, folder / "nested.pth")
    return folder / "nested.pth"


def as_index(folder, state):
    return write_shards(folder, state)


def as_hugging_face_folder(folder, state):
    save_file(state, folder / "model.safetensors")
    torch.save({"not": torch.zeros(2, 2)}, folder / "training_args.bin")
    (folder / "config.json").write_text("{}")
    return folder


def as_folder_of_shards(folder, state):
    write_shards(folder, state)
    return folder


def as_folder_of_torch_shards(folder, state):
    write_shards(folder, state, write=torch.save, suffix="bin")
    return folder


def as_text(folder, state):
    return str(as_safetensors(folder, state))


FORMATS = [value for name, value in list(globals().items()) if name.startswith("as_")]


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_holds_the_same_tensors(tmp_path, state, write):
    source = open_checkpoint(write(tmp_path, state))
    assert set(source.entries) == set(state)
    for name, tensor in state.items():
        assert source.entries[name].shape == tuple(tensor.shape)
        torch.testing.assert_close(source.tensor(name), tensor, rtol=0, atol=0)


def test_a_module_is_its_state_dict_with_effective_weights():
    module = torch.nn.GRU(3, 5)
    assert set(open_checkpoint(module).entries) == set(module.state_dict())
    linear = torch.nn.utils.parametrizations.orthogonal(torch.nn.Linear(4, 4))
    torch.testing.assert_close(open_checkpoint(linear).tensor("weight"), linear.weight.detach())


def test_names_are_in_the_order_of_their_numbers():
    assert in_order(["l.10.b", "l.2.a", "l.2", "a"]) == ["a", "l.2", "l.2.a", "l.10.b"]


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_with_code_is_refused_and_nothing_runs(tmp_path, write):
    write({"w": Hostile(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(rs.InputError, match=r"evil\.pt"):
        open_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Hostile(tmp_path / "ran")))  # it would have
    assert (tmp_path / "ran").exists()


def test_a_pickle_with_code_is_named(tmp_path):
    torch.save({"w": Hostile(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(rs.InputError, match=r"calls code \(posix\.mkdir\).*nothing of it was run.*safetensors"):
        open_checkpoint(tmp_path / "evil.pt")


@pytest.mark.parametrize("changed_later", [False, True])  # torch ignores the checksum, which is then wrong
def test_a_name_without_end_is_refused(tmp_path, changed_later):
    torch.save({"w": torch.zeros(2, 2)}, tmp_path / "valid.pt")
    with zipfile.ZipFile(tmp_path / "valid.pt") as valid, zipfile.ZipFile(tmp_path / "evil.pt", "w") as evil:
        for item in valid.infolist():
            content = valid.read(item)
            if item.filename.endswith("data.pkl"):
                content = content.replace(b"ctorch._utils\n", b"ctorch" + 40_000 * b"c" + b"\n")
            evil.writestr(item, content)
    if changed_later:
        content = (tmp_path / "evil.pt").read_bytes()
        (tmp_path / "evil.pt").write_bytes(content.replace(b"ccc\n", b"ccd\n", 1))
    with pytest.raises(rs.InputError, match=r"calls code \(torchccc.*nothing of it was run"):
        open_checkpoint(tmp_path / "evil.pt")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 100, 0.5, 0.99, -1])
def test_a_truncated_file_is_refused(tmp_path, state, name, kept):
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(rs.InputError, match=name):
        open_checkpoint(tmp_path / name)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w", "model.safetensors.index.json"])
@pytest.mark.parametrize("seed", range(3))
def test_garbage_is_refused(tmp_path, name, seed):
    (tmp_path / name).write_bytes(torch.randint(0, 256, (999,), generator=torch.manual_seed(seed)).byte().numpy())
    with pytest.raises(rs.InputError, match=name):
        open_checkpoint(tmp_path / name)


def test_an_archive_that_would_unpack_to_more_than_it_is_is_refused(tmp_path):
    torch.save({"w": torch.zeros(2000, 500)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "bomb.pt", "w", 8) as bomb:
        for item in plain.infolist():
            bomb.writestr(item.filename, plain.read(item), compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(rs.InputError, match="uncompressed"):
        open_checkpoint(tmp_path / "bomb.pt")


@pytest.mark.parametrize("content", [3, [torch.zeros(2, 2)], {}, {"epoch": 3}, torch.zeros(2, 2), {"a": {"b": 1}}])
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(rs.InputError, match="state dict"):
        open_checkpoint(tmp_path / "w.pt")


def test_several_groups_of_tensors_are_not_guessed_among(tmp_path):
    torch.save({"actor": {"w": torch.zeros(2, 2)}, "critic": {"w": torch.zeros(2, 2)}}, tmp_path / "w.pt")
    with pytest.raises(rs.InputError, match=r"several groups.*'actor', 'critic'"):
        open_checkpoint(tmp_path / "w.pt")


@pytest.mark.parametrize(
    "place", ["../outside.safetensors", "/etc/passwd", "sub/w.safetensors", "..", "", "a\\b", "a\0b", 3, None, ["w"]]
)
def test_an_index_that_leads_outside_its_folder_is_refused(tmp_path, place):
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"w": torch.zeros(2, 2)}, tmp_path / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": place}}))
    with pytest.raises(rs.InputError, match=r"files in its own folder.*for 'w'"):
        open_checkpoint(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 100000])
def test_a_damaged_index_is_refused(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(rs.InputError, match=r"index\.json"):
        open_checkpoint(tmp_path)


def test_a_missing_shard_is_named(tmp_path, state):
    write_shards(tmp_path, state)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(rs.InputError, match=r"model-00002-of-00002.*not there"):
        open_checkpoint(tmp_path)


def test_a_tensor_that_its_shard_lacks_is_skipped_and_the_rest_goes_on(tmp_path, state):
    index = write_shards(tmp_path, state)
    content = json.loads(index.read_text())
    content["weight_map"]["ghost.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    frame = rs.compare(index, changed(state) | {"ghost.weight": torch.zeros(2, 2)})
    assert len(frame) > 3
    assert {"name": "ghost.weight", "reason": "not in model-00001-of-00002.safetensors, where the index has it"} in (
        frame.attrs["skipped"]
    )


def test_a_folder_with_nothing_or_too_much_in_it_is_refused(tmp_path):
    with pytest.raises(rs.InputError, match="without"):
        open_checkpoint(tmp_path)
    for name in ("a", "b"):
        save_file({"w": torch.zeros(2, 2)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(rs.InputError, match=r"a\.safetensors, b\.safetensors; name one"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("given", [3, None, [1], b"w.pt"])
def test_what_is_no_checkpoint_is_refused(given):
    with pytest.raises(rs.InputError, match="before must be a path, a state dict or a module"):
        open_checkpoint(given)


def test_a_mapping_of_something_else_is_refused():
    with pytest.raises(rs.InputError, match="before must map names to tensors, got str for 'w'"):
        open_checkpoint({"w": "heavy"})


@pytest.mark.parametrize("name", ["x" * 70_000, "x" * 256])
def test_an_index_with_a_name_that_no_system_has_is_refused(tmp_path, name):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(rs.InputError, match=r"index\.json (must name files in its own folder|names the file)") as error:
        open_checkpoint(tmp_path)
    assert len(str(error.value)) < 600
