"""Episodes in object storage: read by ranges, checked as on a disk, there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("obstore", reason="the extra `remote` is not installed")

from embodied_vision.cli.episodes import app
from embodied_vision.episodes import Episode, EpisodeStore
from embodied_vision.episodes.remote import RemotePath
from embodied_vision.episodes.select import find_episode
from embodied_vision.episodes.transfer import pull, push
from embodied_vision.episodes.verify import verify_episode
from embodied_vision.episodes.windows import Sampling, Windows
from embodied_vision.errors import BadInput, EpisodeError, RunFailed
from tests.command_line import figures
from tests.episodes.bucket import Bucket, Server, serve
from tests.episodes.samples import Child, assert_holds, files_of, read_all, write_episode

FRAMES = 70
"""More than a shard holds."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{running.port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield running


@pytest.fixture
def bucket(server: Server) -> Bucket:
    return server.bucket()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    """A store that no test changes: a long and a short episode."""
    store = EpisodeStore(tmp_path_factory.mktemp("local"))
    write_episode(store, FRAMES)
    write_episode(store, 2, solved=False, task="towers-of-hanoi")
    return store


@pytest.fixture
def remote(bucket: Bucket, local: EpisodeStore) -> EpisodeStore:
    """Both episodes, pushed."""
    made = EpisodeStore(bucket.url)
    for episode_id in local.ids():
        push(local, made, episode_id)
    bucket.requests.clear()
    return made


@pytest.fixture(scope="module")
def shared_bucket(server: Server) -> Bucket:
    return server.bucket()


@pytest.fixture(scope="module")
def shared(shared_bucket: Bucket, local: EpisodeStore) -> EpisodeStore:
    """Both episodes, pushed once; no test changes them."""
    made = EpisodeStore(shared_bucket.url)
    for episode_id in local.ids():
        push(local, made, episode_id)
    return made


def color_shard(bucket: Bucket, episode_id: str) -> str:
    return f"episodes/{episode_id}/data.zarr/cameras/camera/color/c.0.0.0.0"


def test_a_pushed_episode_is_the_local_one(shared: EpisodeStore, local: EpisodeStore) -> None:
    assert shared.ids() == local.ids()
    assert shared.staging_ids() == []
    episode, original = (find_episode(store, local.ids()[0]) for store in (shared, local))
    read_all(episode)
    assert_holds(episode, FRAMES)
    for one, other in zip(episode.stream("joint_states"), original.stream("joint_states"), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (episode.task, episode.outcome, episode.created_ns) == (original.task, original.outcome, original.created_ns)
    assert [found.id for found in shared.select(task="towers-of-hanoi")] == local.ids()[1:]
    assert verify_episode(shared, local.ids()[0]).ok
    group = episode.group()
    np.testing.assert_array_equal(group["cameras/camera/depth"][69], original.group()["cameras/camera/depth"][69])


def test_one_frame_is_one_small_request(shared: EpisodeStore, shared_bucket: Bucket) -> None:
    episode_id = shared.ids()[0]
    shard = len(shared_bucket.call("GET", color_shard(shared_bucket, episode_id)))
    frames = shared.open(episode_id).frames("camera")
    shared_bucket.requests.clear()
    frames.color(5)
    index, chunk = shared_bucket.gets("color")
    assert index == 64 * 16 + 4
    assert chunk < shard / 32
    frames.color(60)
    assert len(shared_bucket.gets()) == 3
    assert sum(shared_bucket.gets()) < shard / 10


def test_metadata_are_fetched_once(shared: EpisodeStore, shared_bucket: Bucket) -> None:
    episode = shared.open(shared.ids()[0])
    shared_bucket.requests.clear()
    read_all(episode)
    assert [path for _, path, _ in shared_bucket.requests if path.endswith("zarr.json")] == []


def test_neighbours_come_by_one_request(shared: EpisodeStore, shared_bucket: Bucket, local: EpisodeStore) -> None:
    frames = shared.open(shared.ids()[0]).frames("camera")
    shared_bucket.requests.clear()
    colors = frames.colors([3, 2, 20, 20, 66, -1])
    assert len(shared_bucket.gets("color")) == 4, "an index and a stretch a shard"
    original = local.open(local.ids()[0]).frames("camera")
    np.testing.assert_array_equal(colors, [original.color(i) for i in (3, 2, 20, 20, 66, 69)])


def test_windows(shared: EpisodeStore, local: EpisodeStore) -> None:
    sampling = {"cameras/camera/depth": Sampling.every(15, first=-1, length=3, align="nearest", tolerance_s=0.05)}
    one, other = (Windows(store.open(local.ids()[0]), sampling)[40] for store in (shared, local))
    np.testing.assert_array_equal(one["cameras/camera/depth"].values, other["cameras/camera/depth"].values)
    np.testing.assert_array_equal(one["cameras/camera/depth"].padded, other["cameras/camera/depth"].padded)


def test_an_open_episode_goes_to_another_process(shared: EpisodeStore) -> None:
    copied = pickle.loads(pickle.dumps(shared.open(shared.ids()[0])))  # noqa: S301 its own bytes
    assert_holds(copied, FRAMES)


def test_a_forked_process_is_told_instead_of_hanging(shared: EpisodeStore) -> None:
    frames = shared.open(shared.ids()[0]).frames("camera")

    def work() -> None:
        with pytest.raises(EpisodeError, match="spawn"):
            frames.color(0)

    signal.alarm(0)
    with Child(work) as child:
        assert child.wait() == 0


# ---- damage


def test_every_damage_is_told_with_the_url(remote: EpisodeStore, bucket: Bucket) -> None:
    episode_id = remote.ids()[0]
    shard = color_shard(bucket, episode_id)
    content = bytearray(bucket.call("GET", shard))
    content[200] ^= 4
    bucket.call("PUT", shard, bytes(content))
    episode = remote.open(episode_id)
    with pytest.raises(EpisodeError, match=f"{bucket.url}.*color/c.0.0.0.0: chunk 0 .*crc32c"):
        episode.frames("camera").color(0)
    episode.frames("camera").color(40)
    report = verify_episode(remote, episode_id)
    assert [name for name, _ in report.problems] == [shard.partition(f"{episode_id}/")[2]]

    bucket.call("DELETE", shard)
    with pytest.raises(EpisodeError, match=f"{bucket.url}.*cannot be read"):
        episode.frames("camera").color(3)
    with pytest.raises(EpisodeError, match=f"{bucket.url}.*c.0.0.0.0: missing"):
        remote.open(episode_id)


def test_an_object_that_was_replaced_is_not_mixed_in(remote: EpisodeStore, bucket: Bucket) -> None:
    """By a whole one that checks alone would take for the former."""
    episode_id = remote.ids()[0]
    shard = color_shard(bucket, episode_id)
    frames = remote.open(episode_id).frames("camera")
    content = bucket.call("GET", shard)
    color, index = frames.color(0), np.frombuffer(content[-1028:-4], "<u8").reshape(64, 2)
    first, second = (slice(int(offset), int(offset + size)) for offset, size in index[:2])
    exchanged = bytearray(content)
    if index[0, 1] == index[1, 1]:
        exchanged[first], exchanged[second] = content[second], content[first]
    else:
        exchanged += b"later"
    bucket.call("PUT", shard, bytes(exchanged))
    for work in (lambda: frames.color(0), lambda: frames.colors([0, 40, 41])):
        with pytest.raises(EpisodeError, match=f"{bucket.url}.*replaced since"):
            work()
    bucket.call("PUT", shard, content)
    np.testing.assert_array_equal(frames.color(0), color)


@pytest.mark.parametrize("end", [0, 100, -1])
def test_an_object_cut_short_is_noticed(remote: EpisodeStore, bucket: Bucket, end: int) -> None:
    shard = color_shard(bucket, remote.ids()[0])
    open_before = remote.open(remote.ids()[0]).frames("camera")
    bucket.call("PUT", shard, bucket.call("GET", shard)[:end])
    with pytest.raises(EpisodeError, match=bucket.url):
        open_before.color(5)
    with pytest.raises(EpisodeError, match="the manifest says"):
        remote.open(remote.ids()[0])


def test_metadata_are_compared_with_the_manifest(remote: EpisodeStore, bucket: Bucket) -> None:
    key = f"episodes/{remote.ids()[0]}/data.zarr/zarr.json"
    bucket.call("PUT", key, bucket.call("GET", key).replace(b"panda_suction", b"panda_gripper"))
    with pytest.raises(EpisodeError, match="sha256"):
        remote.open(remote.ids()[0])


def test_permission_denied(remote: EpisodeStore, bucket: Bucket) -> None:
    episode = remote.open(remote.ids()[0])
    bucket.before = lambda method, path: 403
    for work in (remote.ids, remote.exists, lambda: remote.open(episode.id), lambda: episode.frames("camera")):
        with pytest.raises(EpisodeError, match=f"{bucket.url}.*permission denied.*credentials"):
            work()


def test_a_bucket_that_is_not_there(server: Server, local: EpisodeStore) -> None:
    remote = EpisodeStore("s3://no-such-bucket/prefix")
    for work in (
        remote.ids,
        remote.exists,
        lambda: remote.open(local.ids()[0]),
        lambda: push(local, remote, local.ids()[0]),
    ):
        with pytest.raises(EpisodeError, match=r"s3://no-such-bucket/prefix.*bucket does not exist"):
            work()


def test_an_endpoint_that_is_not_there(server: Server) -> None:
    """In a process of its own: the endpoint is asked for when a URL is used first."""
    code = (
        "from embodied_vision.episodes.connection import _RETRY\n"
        "_RETRY['max_retries'] = 0\n"
        "from embodied_vision.episodes import EpisodeStore\n"
        "EpisodeStore('s3://bucket/prefix').ids()"
    )
    variables = {**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=60)
    assert "EpisodeError: s3://bucket/prefix/episodes cannot be listed" in done.stderr


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/etc/passwd", "a//b", ".", "a\\b", "a\x00b", ""])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(BadInput):
        RemotePath.parse("s3://bucket/prefix") / name


def test_hostile_keys_are_no_episodes(remote: EpisodeStore, bucket: Bucket) -> None:
    before = remote.ids()
    for key in ("-x/manifest.json", "a%20b/manifest.json", ".hidden/a", "%5Cx/a"):
        bucket.call("PUT", f"episodes/{key}", b"{}")
    assert remote.ids() == before


def test_a_key_that_leads_elsewhere_is_refused(remote: EpisodeStore, bucket: Bucket) -> None:
    bucket.call("PUT", "episodes/..%2Fevil/manifest.json", b"{}")
    with pytest.raises(EpisodeError, match=r"cannot be listed .*illegal"):
        remote.ids()


@pytest.mark.parametrize("name", ["../../../evil", "/tmp/evil", "data.zarr/../../../evil", "data.zarr//x"])
def test_a_manifest_that_leads_elsewhere_is_refused(
    remote: EpisodeStore, bucket: Bucket, tmp_path: Path, name: str
) -> None:
    content: dict[str, Any] = {"schema": 1, "id": "evil", "files": {name: {"size": 1, "sha256": "0" * 64}}}
    content["sha256"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    bucket.call("PUT", "episodes/evil/manifest.json", json.dumps(content).encode())
    store = EpisodeStore(tmp_path / "inner" / "store")
    for work in (lambda: remote.open("evil"), lambda: pull(remote, store, "evil")):
        with pytest.raises(BadInput):
            work()
    assert [path for path in files_of(tmp_path) if path.is_file()] == []


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/a", "https://host/a?token=secret", "https://host/a#secret"])
def test_urls_hold_no_credentials_and_errors_neither(url: str) -> None:
    with pytest.raises(BadInput, match="environment") as caught:
        EpisodeStore(url)
    assert "secret" not in str(caught.value)


def test_without_obstore_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(BadInput, match=r"embodied-vision\[remote\]"):
        EpisodeStore("s3://bucket/never-used")


def test_what_needs_a_folder_says_so(shared: EpisodeStore) -> None:
    with pytest.raises(BadInput, match="object storage"):
        write_episode(shared, 1)
    with pytest.raises(BadInput, match="pull"):
        _ = shared.open(shared.ids()[0]).path


# ---- pushing


def test_pushing_again_uploads_nothing(shared: EpisodeStore, local: EpisodeStore, shared_bucket: Bucket) -> None:
    shared_bucket.requests.clear()
    assert push(local, shared, local.ids()[0]).state == "there"
    assert push(local, shared, local.ids()[0], verify=True).state == "there"
    assert {method for method, _, _ in shared_bucket.requests} <= {"GET", "HEAD"}


def test_a_push_that_is_cut_off_anywhere_leaves_no_half_episode(bucket: Bucket, local: EpisodeStore) -> None:
    remote, episode_id = EpisodeStore(bucket.url), local.ids()[1]
    left = 0

    def refuse(method: str, path: str) -> int:
        nonlocal left
        left -= method in ("PUT", "POST", "DELETE")
        return 403 if left < 0 and method in ("PUT", "POST", "DELETE") else 0

    writes = len(files_of(local.folder(episode_id))) + 2  # the marker comes and goes
    appeared = []
    for allowed in [0, 1, 2, *range(5, writes - 2, 7), writes - 2, writes - 1]:
        left, bucket.before = allowed, refuse
        with pytest.raises(EpisodeError, match="permission"):
            push(local, remote, episode_id)
        bucket.before = lambda method, path: 0
        appeared.append(remote.ids())
        assert not remote.ids() or verify_episode(remote, episode_id).ok
        for key in RemotePath.parse(bucket.url).sizes_under():
            bucket.call("DELETE", key)
    assert appeared == [[]] * (len(appeared) - 1) + [[episode_id]], "it appears with its manifest, the last file"
    assert push(local, remote, episode_id, verify=True).state == "copied"
    assert verify_episode(remote, episode_id).ok
    assert remote.staging_ids() == []


def test_a_push_goes_on_where_it_was_cut_off(bucket: Bucket, local: EpisodeStore) -> None:
    remote, episode_id = EpisodeStore(bucket.url), local.ids()[1]
    bucket.before = lambda method, path: 403 if method == "PUT" and "decisions" in path else 0
    with pytest.raises(EpisodeError, match="permission"):
        push(local, remote, episode_id)
    bucket.before = lambda method, path: 0
    assert (remote.ids(), remote.staging_ids()) == ([], [episode_id])
    with pytest.raises(EpisodeError, match="no episode"):
        remote.open(episode_id)
    there = len(RemotePath.parse(bucket.url).sizes_under()) - 1
    assert there > 3
    files = len(files_of(local.folder(episode_id))) - 1
    assert push(local, remote, episode_id).files == files - there
    assert verify_episode(remote, episode_id).ok


def test_leftovers_of_another_version_are_not_trusted(bucket: Bucket, local: EpisodeStore) -> None:
    """An episode whose push was cut off was edited before it was pushed again."""
    remote, episode_id = EpisodeStore(bucket.url), local.ids()[1]
    shard = color_shard(bucket, episode_id)
    size = (local.folder(episode_id) / shard.partition(f"{episode_id}/")[2]).stat().st_size
    bucket.call("PUT", f"staging/{episode_id}/push.json", b'{"manifest_sha256": "another"}')
    bucket.call("PUT", shard, b"x" * size)
    bucket.call("PUT", f"episodes/{episode_id}/data.zarr/gone/zarr.json", b"{}")
    push(local, remote, episode_id)
    assert verify_episode(remote, episode_id).ok


def test_a_different_episode_of_the_same_id_is_refused(
    remote: EpisodeStore, local: EpisodeStore, bucket: Bucket, tmp_path: Path
) -> None:
    other, episode_id = EpisodeStore(tmp_path), local.ids()[1]
    made = other.folder(write_episode(other, 1))
    key = f"episodes/{episode_id}/manifest.json"
    content = json.loads((made / "manifest.json").read_bytes()) | {"id": episode_id}
    del content["sha256"]
    content["sha256"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    before = bucket.call("GET", key)
    (made / "manifest.json").write_text(json.dumps(content))
    made.rename(made.parent / episode_id)
    with pytest.raises(EpisodeError, match="differs"):
        push(other, remote, episode_id)
    with pytest.raises(EpisodeError, match="differs"):
        pull(remote, other, episode_id)
    assert bucket.call("GET", key) == before


def test_nothing_damaged_is_pushed(bucket: Bucket, tmp_path: Path) -> None:
    store, remote = EpisodeStore(tmp_path), EpisodeStore(bucket.url)
    episode_id = write_episode(store, 2)
    victim = store.folder(episode_id) / "data.zarr/cameras/camera/depth/c.0.0.0"
    content = bytearray(victim.read_bytes())
    content[50] ^= 1
    victim.write_bytes(content)
    with pytest.raises(EpisodeError, match=r"depth/c\.0\.0\.0.*differs"):
        push(store, remote, episode_id)
    assert remote.ids() == []


def test_verify_reads_back_before_the_episode_appears(bucket: Bucket, local: EpisodeStore) -> None:
    remote, episode_id = EpisodeStore(bucket.url), local.ids()[1]
    shard = color_shard(bucket, episode_id)
    size = (local.folder(episode_id) / shard.partition(f"{episode_id}/")[2]).stat().st_size

    def damage(method: str, path: str) -> int:
        if method == "GET" and path.endswith(shard):
            bucket.call("PUT", shard, b"x" * size)
        return 0

    bucket.before = damage
    with pytest.raises(RunFailed, match=r"c\.0\.0\.0\.0"):
        push(local, remote, episode_id, verify=True)
    bucket.before = lambda method, path: 0
    assert remote.ids() == []


@pytest.mark.parametrize("at", [2, 20, "manifest.json"])
def test_a_killed_push_can_be_repeated(bucket: Bucket, local: EpisodeStore, at: int | str) -> None:
    remote, episode_id = EpisodeStore(bucket.url), local.ids()[1]
    child: list[subprocess.Popen[bytes]] = []
    puts = 0

    def kill(method: str, path: str) -> int:
        nonlocal puts
        puts += method == "PUT"
        if child and method == "PUT" and (puts == at or path.endswith(str(at))):
            child[0].kill()
        return 0

    bucket.before = kill
    code = "from embodied_vision.cli.main import main; main()"
    arguments = [sys.executable, "-c", code, "episodes", "push", str(local.path), bucket.url, episode_id]
    child.append(subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
    assert child[0].wait(60) == -signal.SIGKILL
    if remote.ids():  # the request that it was killed in may have arrived
        assert at == "manifest.json"
        assert verify_episode(remote, episode_id).ok
    bucket.before = lambda method, path: 0
    push(local, remote, episode_id)
    assert verify_episode(remote, episode_id).ok
    assert remote.ids() == [episode_id]


# ---- pulling


def test_a_pulled_episode_is_the_pushed_one(shared: EpisodeStore, local: EpisodeStore, tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "store")
    assert [pull(shared, store, i).state for i in shared.ids()] == ["copied", "copied"]
    assert [pull(shared, store, i).state for i in shared.ids()] == ["there", "there"]
    for episode_id in local.ids():
        assert verify_episode(store, episode_id).ok
        one, other = store.folder(episode_id), local.folder(episode_id)
        assert [f.relative_to(one) for f in files_of(one)] == [f.relative_to(other) for f in files_of(other)]


def test_a_killed_pull_can_be_repeated(remote: EpisodeStore, bucket: Bucket, tmp_path: Path) -> None:
    store, episode_id = EpisodeStore(tmp_path / "store"), remote.ids()[1]
    child: list[subprocess.Popen[bytes]] = []

    def kill(method: str, path: str) -> int:
        if child and "decisions" in path and "zarr.json" not in path:
            child[0].kill()
        return 0

    bucket.before = kill
    code = "from embodied_vision.cli.main import main; main()"
    arguments = [sys.executable, "-c", code, "episodes", "pull", bucket.url, str(store.path), episode_id]
    child.append(subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
    assert child[0].wait(60) == -signal.SIGKILL
    bucket.before = lambda method, path: 0
    assert store.ids() == []
    assert pull(remote, store, episode_id).state == "copied"
    assert verify_episode(store, episode_id).ok
    assert not any((store.path / "edits").iterdir()), "nothing of the first attempt is left"


def test_nothing_damaged_is_pulled(remote: EpisodeStore, bucket: Bucket, tmp_path: Path) -> None:
    shard = color_shard(bucket, remote.ids()[0])
    content = bucket.call("GET", shard)
    bucket.call("PUT", shard, content[:-1] + bytes([content[-1] ^ 1]))
    store = EpisodeStore(tmp_path / "store")
    with pytest.raises(EpisodeError, match=f"{bucket.url}.*damaged"):
        pull(remote, store, remote.ids()[0])
    assert store.ids() == []
    bucket.call("PUT", shard, content)
    assert pull(remote, store, remote.ids()[0]).state == "copied"


# ---- other stores, and the command line


def test_a_web_server_that_cannot_list(shared: EpisodeStore, shared_bucket: Bucket) -> None:
    web = EpisodeStore(f"http://127.0.0.1:{shared_bucket.port}/{shared_bucket.name}/stores/one")
    assert_holds(web.open(shared.ids()[0]), FRAMES)
    assert_holds(Episode(f"{web.location}/episodes/{shared.ids()[0]}"), FRAMES)
    with pytest.raises(EpisodeError, match="by their id"):
        web.ids()


@pytest.mark.parametrize("url", ["memory:///somewhere", "file://{folder}"])
def test_other_kinds_of_storage(local: EpisodeStore, tmp_path: Path, url: str) -> None:
    remote = EpisodeStore(url.format(folder=tmp_path))
    push(local, remote, local.ids()[0], verify=True)
    assert remote.ids() == local.ids()[:1]
    assert_holds(remote.open(local.ids()[0]), FRAMES)


def run(*arguments: str) -> Any:
    return figures(app, *arguments, "--json")


def test_on_the_command_line(bucket: Bucket, local: EpisodeStore, tmp_path: Path) -> None:
    first, second = local.ids()
    assert run("push", str(local.path), bucket.url, "--task", "block-insertion")["pushed"] == 1
    again = run("push", str(local.path), bucket.url, "--verify")
    assert (again["pushed"], again["there"], again["failed"]) == (1, 1, [])
    assert [row["id"] for row in run("list", bucket.url)["episodes"]] == [first, second]
    assert run("show", bucket.url, second)["task"] == "towers-of-hanoi"
    assert run("verify", bucket.url)["ok"] == 2
    pulled = run("pull", bucket.url, str(tmp_path / "new"), "--failed")
    assert [entry["id"] for entry in pulled["episodes"]] == [second]
    bucket.call("DELETE", color_shard(bucket, first))
    with pytest.raises(RunFailed, match=r"1 of 2 .*missing"):
        run("pull", bucket.url, str(tmp_path / "new"))
    with pytest.raises(BadInput, match="meet the conditions"):
        run("push", str(local.path), bucket.url, "--task", "nothing")
    with pytest.raises(BadInput, match="is a folder"):
        run("push", str(local.path), str(tmp_path))
    with pytest.raises(BadInput, match="is object storage"):
        run("push", bucket.url, bucket.url)


def test_a_place_that_cannot_be_written(shared: EpisodeStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", Path("/proc/store")):
        with pytest.raises(EpisodeError, match=str(place)):
            pull(shared, EpisodeStore(place), shared.ids()[0])
