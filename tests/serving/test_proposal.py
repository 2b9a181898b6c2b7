"""The settings that the doctor proposes, and the file that holds them."""

import shlex
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from router import settings
from router.backends.canary import Finding
from router.backends.probes import Speed
from router.serving import proposal
from router.serving.examination import ABOUT, Examination, Proved
from router.settings import Settings

URL = "http://127.0.0.1:8000"


def given(**more: object) -> Settings:
    return settings.load(backend="vllm", backend_url=f"{URL}/v1, http://b:1/", backend_model="my model", **more)


def found(loaded: Settings, *findings: Finding, fingerprint: str = "vllm-1/m/x/native") -> Examination:
    proved = Proved(fingerprint, Speed(0.1234, 0.00987), steps=True) if fingerprint else None
    return Examination(lambda finding: None, list(findings), loaded.served[0], proved)


def modes(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def sourced(path: Path, name: str) -> str:
    """What a shell makes of a setting in the file."""
    script = f'set -a; . {shlex.quote(str(path))}; set +a; printenv "{name}"'
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env={}).stdout


def test_all_that_serves_the_engine_is_proposed_and_the_key_is_not_shown() -> None:
    loaded = given(backend_key="secret", public=["plaintext-keys"])
    proposed = proposal.settings(loaded, found(loaded))
    assert proposed == {
        "BUDGET_ROUTER_BACKEND": "vllm",
        "BUDGET_ROUTER_BACKEND_URL": f"{URL},http://b:1",
        "BUDGET_ROUTER_BACKEND_MODEL": "my model",
        "BUDGET_ROUTER_BACKEND_KEY": "secret",
        "BUDGET_ROUTER_BACKEND_ENFORCEMENT": "native",
        "BUDGET_ROUTER_FIRST_TOKEN_SECONDS": "0.12",
        "BUDGET_ROUTER_TOKEN_SECONDS": "0.0099",
    }
    assert "secret" not in str(proposal.shown(proposed))


def test_a_bundle_and_a_target_that_were_named_stay_named() -> None:
    loaded = given(artifact=Path("models"), max_loss=0.05)
    proposed = proposal.settings(loaded, found(loaded))
    assert proposed["BUDGET_ROUTER_ARTIFACT"] == "models" and proposed["BUDGET_ROUTER_MAX_LOSS"] == "0.05"


def test_what_is_not_proved_is_not_proposed() -> None:
    loaded = given()
    assert proposal.settings(loaded, found(loaded, fingerprint="")) == {}
    hint = proposal.settings(given(backend_unenforced="warn"), found(loaded, fingerprint="vllm-1/m/x/hint"))
    assert "BUDGET_ROUTER_BACKEND_ENFORCEMENT" not in hint and hint["BUDGET_ROUTER_BACKEND_UNENFORCED"] == "warn"
    embedded = settings.load(backend_url=URL)  # an address that nobody uses, as in docker-compose.yml
    assert proposal.settings(embedded, found(embedded)) == {}


@pytest.mark.parametrize("value", ["plain", "two words", "it's", '$HOME "x" `y`', "a#b", "a\\b"])
def test_a_shell_reads_what_was_written(tmp_path: Path, value: str) -> None:
    file = tmp_path / "router.env"
    proposal.write(file, {"BUDGET_ROUTER_BACKEND_MODEL": value})
    assert sourced(file, "BUDGET_ROUTER_BACKEND_MODEL") == f"{value}\n"


def test_other_lines_stay_and_nobody_else_reads_the_file(tmp_path: Path) -> None:
    file = tmp_path / "router.env"
    old = (
        "# mine\nOTHER=1\nexport BUDGET_ROUTER_BACKEND=sglang\nBUDGET_ROUTER_BACKEND_MODEL=old\nBUDGET_ROUTER_AUDIT=.1"
    )
    file.write_text(old)
    file.chmod(0o644)
    (tmp_path / "link").symlink_to(file)
    proposal.write(tmp_path / "link", {"BUDGET_ROUTER_BACKEND": "vllm", "BUDGET_ROUTER_BACKEND_KEY": "secret"})
    assert file.read_text().splitlines() == [
        "# mine",
        "OTHER=1",
        "BUDGET_ROUTER_AUDIT=.1",
        "BUDGET_ROUTER_BACKEND=vllm",
        "BUDGET_ROUTER_BACKEND_KEY=secret",
    ]
    assert modes(file) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "router.env"]


def test_nothing_of_another_engine_stays(tmp_path: Path) -> None:
    file = tmp_path / "router.env"
    hosted = given(backend_key="key-of-hosted", backend_unenforced="warn", public=["plaintext-keys"])
    proposal.write(file, proposal.settings(hosted, found(hosted, fingerprint="openai_effort-1/m/hint")))
    assert "BUDGET_ROUTER_BACKEND_KEY=key-of-hosted" in file.read_text()
    loaded = given()
    proposal.write(file, proposal.settings(loaded, found(loaded)))
    assert "key-of-hosted" not in file.read_text() and "UNENFORCED" not in file.read_text()
    assert len(file.read_text().splitlines()) == len(proposal.settings(loaded, found(loaded)))


def test_no_file_beside_it_is_touched(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "router.env.new").symlink_to(victim)
    proposal.write(tmp_path / "router.env", {"BUDGET_ROUTER_BACKEND": "vllm"})
    assert victim.read_text() == "precious" and (tmp_path / "router.env.new").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["router.env", "router.env.new", "victim"]


def test_one_step_follows_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = given()
    foreign, broken = Finding(ABOUT, False, ""), Finding("engine", False, "")

    def steps(
        *findings: Finding, open_end: bool = True, written: Path | None = None, wanted: Sequence[str] = ()
    ) -> list[str]:
        again = {"--url": "http://a b", "--model": "mine"}
        seen = found(loaded, *findings)
        seen.wrong |= wrong
        return proposal.next_commands(
            "bin/budget-router", again, seen, open_end=open_end, wanted=wanted, written=written
        )

    wrong: set[str] = set()
    doctor = "bin/budget-router doctor --url 'http://a b'"
    assert steps(broken, foreign) == [f"{doctor} --model mine"]
    assert steps(foreign) == [f"{doctor} --model mine --write router.env"]
    (tmp_path / "router.env").touch()
    assert steps(foreign) == [f"{doctor} --model mine --write router.env --force"]
    learns = ["set -a; . ./router.env; set +a", "bin/budget-router serve --learn observe"]
    assert steps(foreign, written=Path("router.env")) == learns
    assert steps(open_end=False) == ["bin/budget-router serve"]
    pocket = found(loaded)
    pocket.unloaded = True
    loads = proposal.next_commands("budget-router", {}, pocket, open_end=False, wanted=(), written=None)
    assert loads == ["set -a; . ./router.env; set +a", "budget-router doctor"]
    default = found(loaded)
    default.max_loss = 0.05
    served = proposal.next_commands("budget-router", {}, default, open_end=False, wanted=(), written=None)
    assert served == ["BUDGET_ROUTER_MAX_LOSS=0.05 budget-router serve"]
    # What was seen to be wrong is not proposed again, and the file is still wanted.
    wrong = {"model", "key"}
    assert steps(broken, wanted=("--write", "own.env")) == [f"{doctor} --key-file engine.key --write own.env"]


def test_savings_begin_with_a_bundle_about_the_engine() -> None:
    foreign, broken = Finding(ABOUT, False, ""), Finding("engine", False, "")
    assert proposal.training_command("budget-router", found(given())) == ""
    assert proposal.training_command("budget-router", found(given(), broken, foreign)) == ""
    collect = proposal.training_command("bin/budget-router", found(given(), foreign))
    assert collect.startswith(f"bin/budget-train collect --backend vllm --url {URL} --model 'my model' --ladder 0,512,")


@pytest.mark.parametrize(
    ("window", "ladder"), [(2048, "0,32,128,512"), (4096, "0,160,640,2560"), (10_000, "0,512,2048,8192")]
)
def test_the_first_ladder_fits_the_window_of_the_engine(window: int, ladder: str) -> None:
    seen = found(given(), Finding(ABOUT, False, ""))
    seen.window = window
    assert f"--ladder {ladder} " in proposal.training_command("budget-router", seen)
