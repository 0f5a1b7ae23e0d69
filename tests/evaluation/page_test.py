"""The HTML report: complete, safe to open, and it works in a browser."""

import html
import html.parser
import json
import re
import shutil
import subprocess

import pytest

from hsa_jax.evaluation import plots, report
from hsa_jax.evaluation.pages import (
  Cell,
  Facts,
  Heading,
  Paragraph,
  Picture,
  Table,
  render_markdown,
  render_page,
)
from tests.evaluation import report_cases as cases

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
VOID = {"meta", "img", "br"}


class Checker(html.parser.HTMLParser):
  """Every element is closed, in order; collects tags and addresses."""

  def __init__(self):
    super().__init__()
    self.open: list[str] = []
    self.tags: list[str] = []
    self.addresses: list[str] = []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.addresses += [v for k, v in attrs if k in ("src", "href") and v]
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def page_of(blocks, folder):
  text = render_page([Heading(1, "A & B"), *blocks], folder)
  checker = Checker()
  checker.feed(text)
  assert not checker.open
  return text, checker


def test_page_is_well_formed_and_escapes(tmp_path):
  rows = [[Cell("<script>x</script>", 2.0), Cell("1/2", 0.5, 0.5)]]
  text, checker = page_of(
    [
      Heading(2, "<b>"),
      Paragraph("`a<b` and c"),
      Facts([("name", '"quoted"')]),
      Table(("run", "score"), rows),
    ],
    tmp_path,
  )
  assert "<title>A &amp; B</title>" in text
  assert checker.tags.count("script") == 1  # the page's own
  assert "&lt;script&gt;x" in text and "<code>a&lt;b</code>" in text
  assert 'style="--share:0.500"' in text and 'data-value="2.0"' in text
  assert checker.addresses == ["#s1"] and 'id="s1"' in text


def test_markdown_tables_survive_their_separator():
  table = Table(("P(a | b)",), [[Cell("x|y")]])
  assert render_markdown([table]) == (
    "| P(a \\| b) |\n|-----------|\n| x\\|y      |\n"
  )


def test_page_asks_for_nothing_outside(tmp_path):
  samples = [plots.Sample(256, 0.5, True)]
  plots.heat_maps([("a", samples)], title="t", path=tmp_path / "a.png")
  text, checker = page_of([Picture("a.png", "a < b")], tmp_path)
  assert len(checker.addresses) == 1
  assert checker.addresses[0].startswith("data:image/png;base64,")
  assert 'alt="a &lt; b"' in text and "default-src 'none'" in text
  assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttp", text)


# Runs in the page before it is written out: sorts the second table by its
# second column, twice, and leaves what it saw.
PROBE = """
<script>
const table = document.querySelectorAll("table")[1];
const read = () => [...table.tBodies[0].rows].map((r) => r.cells[1].innerText);
const button = table.querySelectorAll("th button")[1];
const seen = [read()];
button.click(); seen.push(read());
button.click(); seen.push(read());
const note = document.createElement("pre");
note.id = "seen";
note.textContent = JSON.stringify({
  seen: seen, title: document.title, ready: document.documentElement.dataset,
  tables: document.querySelectorAll("table").length,
  images: [...document.images].map((i) => i.naturalWidth),
  asked: performance.getEntriesByType("resource").map((r) => r.name),
  overflow: document.documentElement.scrollWidth - window.innerWidth,
});
document.body.append(note);
</script>
"""


def look(page, tmp_path):
  """What the browser makes of a file, and what it says to its console."""
  result = subprocess.run(
    [
      str(BROWSER),
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-background-networking",
      "--host-resolver-rules=MAP * ~NOTFOUND",
      "--no-first-run",
      "--enable-logging=stderr",
      f"--user-data-dir={tmp_path / 'profile'}",
      "--window-size=1300,900",
      "--dump-dom",
      page.as_uri(),
    ],
    capture_output=True,
    text=True,
    timeout=900,
  )
  lines = result.stderr.splitlines()
  return result.stdout, [line for line in lines if ":CONSOLE" in line]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium installed")
def test_page_works_in_a_browser(tmp_path):
  cases.make_run(tmp_path / "a", "a", lengths=(1024, 4096))
  cases.make_run(tmp_path / "b", "b", lengths=(1024, 4096), skill=0.4)
  out = tmp_path / "out"
  report.write_comparison([tmp_path / "a", tmp_path / "b"], out)
  page = tmp_path / "probe.html"
  text = (out / "report.html").read_text()
  page.write_text(text.replace("</body>", f"{PROBE}</body>"))
  shown, console = look(page, tmp_path)
  assert console == []
  found = re.search(r'<pre id="seen">(.*?)</pre>', shown, re.S)
  assert found, shown[-2000:]
  seen = json.loads(html.unescape(found[1]))
  assert seen["title"] == "Comparison" and seen["ready"] == {"ready": "yes"}
  assert seen["tables"] > 15 and min(seen["images"]) > 500
  before, up, down = seen["seen"]
  assert sorted(before) == sorted(up) and up == down[::-1] != down
  assert seen["overflow"] <= 0
  assert [name for name in seen["asked"] if name[:5] != "data:"] == []


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium installed")
def test_browser_would_tell_of_a_request(tmp_path):
  """The control of the test above: its checks see what they look for."""
  page = tmp_path / "probe.html"
  text = render_page([Heading(1, "A")], tmp_path)
  page.write_text(
    text.replace("<main>", '<main><img src="http://example.invalid/x.png">')
  )
  assert "Content Security Policy" in " ".join(look(page, tmp_path)[1])
