"""Every snippet in README and docs runs, in order, one namespace for each page."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python(?: raises=(\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_run(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files
    namespace = {}
    text = page.read_text()
    for block in BLOCK.finditer(text):
        line = text[: block.start()].count("\n") + 1
        code = compile("\n" * line + block.group(2), str(page), "exec")
        if block.group(1) is None:
            exec(code, namespace)
        else:
            with pytest.raises(Exception, match=r"\w") as raised:
                exec(code, namespace)
            assert raised.type.__name__ == block.group(1)


def test_the_torch_loop_fails_for_the_reason_given():
    """With retain_graph the loop runs, and the scale inside q never changes."""
    torch = pytest.importorskip("torch")
    log_std = torch.zeros((), requires_grad=True)
    q = torch.distributions.Normal(torch.zeros(()), log_std.exp())
    optimizer = torch.optim.Adam([log_std], lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        q.log_prob(q.rsample((10,))).mean().backward(retain_graph=True)
        optimizer.step()
    assert log_std.item() != 0.0
    assert q.scale.item() == 1.0


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
