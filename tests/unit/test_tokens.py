"""The tokens file: what is written, read back, refused."""

from __future__ import annotations

import re
import stat
import threading
from pathlib import Path

import pytest

from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.serving.tokens import add_token, format_tokens, read_tokens, remove_tokens

TOKEN = "0123456789abcdef" * 4


def written(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "tokens"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_token_has_256_bits_in_lower_case_hexadecimal(tmp_path: Path) -> None:
    found = {add_token(tmp_path / "tokens", "alice") for _ in range(20)}
    assert len(found) == 20
    assert all(re.fullmatch("[0-9a-f]{64}", token) for token in found)


def test_what_is_added_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tokens"
    tokens = {add_token(path, client): client for client in ("alice", "bob", "alice", "power-bi.2")}
    assert read_tokens(path) == tokens
    assert path.read_text() == format_tokens(tokens)


def test_only_the_owner_may_read_file_and_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tokens"
    add_token(path, "alice")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    remove_tokens(path, "alice")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, "", mode)
    with pytest.raises(InputError, match=f"chmod 600 {path}"):
        read_tokens(path)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mlflow run \. -e tokens -P client=NAME"):
        read_tokens(tmp_path / "tokens")


def test_comments_and_empty_lines_are_no_tokens(tmp_path: Path) -> None:
    path = written(tmp_path, f'# who\n\n  "Bearer {TOKEN}" "alice";  \n')
    assert read_tokens(path) == {TOKEN: "alice"}


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        f'"Bearer {TOKEN}" "alice"',
        f'"Bearer {TOKEN.upper()}" "alice";',
        f'"Bearer {TOKEN[:-1]}" "alice";',
        f'"Bearer {TOKEN}0" "alice";',
        f'"{TOKEN}" "alice";',
        f'"Bearer {TOKEN}" "";',
        f'"Bearer {TOKEN}" "al ice";',
        f'"Bearer {TOKEN}" "$host";',
        f'"Bearer {TOKEN}" "alice"; default "mallory";',
        '"~Bearer .*" "mallory";',
        'default "mallory";',
        "include /etc/passwd;",
        "}",
    ],
)
def test_a_line_that_is_no_token_is_refused_by_number_and_not_shown(tmp_path: Path, line: str) -> None:
    path = written(tmp_path, f'"Bearer {"a" * 64}" "bob";\n{line}\n')
    with pytest.raises(InputError, match="line 2") as caught:
        read_tokens(path)
    assert TOKEN[:20] not in str(caught.value).lower()


def test_one_token_belongs_to_one_client(tmp_path: Path) -> None:
    path = written(tmp_path, f'"Bearer {TOKEN}" "alice";\n"Bearer {TOKEN}" "bob";\n')
    with pytest.raises(InputError, match=r"stand there once .*line 2"):
        read_tokens(path)


@pytest.mark.parametrize("client", ["", " ", "a b", "ä", '"', "a;b", "-a", ".a", "$x", "a\nb", "a" * 65])
def test_names_that_would_need_quoting_are_refused(tmp_path: Path, client: str) -> None:
    with pytest.raises(InputError, match="client's name"):
        add_token(tmp_path / "tokens", client)
    assert not (tmp_path / "tokens").exists()


def test_removing_takes_all_tokens_of_one_client(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    bob = add_token(path, "bob")
    for _ in range(2):
        add_token(path, "alice")
    assert remove_tokens(path, "alice") == 2
    assert read_tokens(path) == {bob: "bob"}
    with pytest.raises(InputError, match="there are: bob"):
        remove_tokens(path, "alice")


def test_retiring_keeps_the_token_added_last(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    _, bob, newest = (add_token(path, client) for client in ("alice", "bob", "alice"))
    assert remove_tokens(path, "alice", but_newest=True) == 1
    assert read_tokens(path) == {bob: "bob", newest: "alice"}
    assert remove_tokens(path, "alice", but_newest=True) == 0


def test_clients_added_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    threads = [threading.Thread(target=add_token, args=(path, f"client-{i}")) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_tokens(path).values()) == sorted(f"client-{i}" for i in range(20))
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokens"]
