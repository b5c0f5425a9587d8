# Copyright: beta9.workers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The health page, read as a browser reads it: causes first, links that lead somewhere, and nothing that hosts told is more than text."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from ansible_collections.beta9.workers.plugins.plugin_utils import health_causes, health_history, health_page

from tests.unit.health.test_reports import RESULTS, RUN, result

EVIL = "</script><script>alert(1)</script><img src=x onerror='alert(1)'>\" onload=alert(1) '"
VOID = ("meta", "input", "link", "img", "br")


class Page(HTMLParser):
    """elements: [(tag, attributes, tags around it)]; text of the whole page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag):
        if tag in self.open:
            del self.open[len(self.open) - 1 - self.open[::-1].index(tag) :]

    def handle_data(self, data):
        self.text += data

    def of(self, tag, name=""):
        return [
            attributes
            for found, attributes, _around in self.elements
            if found == tag and name in attributes.get("class", "").split() + [""]
        ]


def page(results, before=()):
    text, compared = "", health_history.Compared()
    for day, entries in enumerate([*before, results], 1):
        compared = health_history.compare(text, entries, health_causes.causes(entries), f"2026-01-{day:02}T00:00:00Z")
        text = compared.text
    return health_page.page(results, RUN, health_causes.causes(results, "ansible -i hosts.yml"), compared)


def test_causes_stand_first_and_name_hosts_place_command_and_page():
    text = page(RESULTS)
    found = Page(text)
    assert [attributes["class"] for attributes in found.of("section", "cause")] == ["cause fail", "cause unreachable"]
    assert text.index("class='cause") < text.index("class=host")
    card = text[text.index("<section") : text.index("</section>")]
    assert (
        card.count("href='#host-gpu-") == 12
        and "12 hosts" in card
        and "<pre class=command><code>" in card
        and "G02.md" in card
    )
    assert "On the controller:" in text and "ansible -i hosts.yml all -l gpu-13 -m ansible.builtin.ping" in text


def test_links_lead_to_hosts_of_this_page():
    results = [result("gpu-01", T01="bad"), dict(result("gpu-02", T01="bad"), host="gpu 02'<b>")]
    found = Page(page(results))
    anchors = {attributes["id"] for _tag, attributes, _around in found.elements if "id" in attributes}
    links = {attributes["href"] for attributes in found.of("a") if attributes.get("href", "").startswith("#")}
    # a browser looks for the fragment as it is, then decoded
    assert len(links) == 2 and all(link[1:] in anchors or unquote(link[1:]) in anchors for link in links)
    # inside of what is folded away, so that it unfolds
    assert all("details" in around for _tag, attributes, around in found.elements if "id" in attributes)


def test_what_hosts_told_is_text():
    odd = [dict(result("gpu-01", T01="bad", U08="warn", G01="unknown", A01="crash"), message=EVIL, host=EVIL)]
    for verdict in odd[0]["verdicts"]:
        verdict.update(found=EVIL, evidence=EVIL)
        if verdict["remedy"]:
            verdict["remedy"].update(command=EVIL, prose=EVIL, host=EVIL)
            verdict.update(cause=EVIL, docs="https://docs.example.com/" + EVIL)
    down = [{"host": EVIL + "2", "outcome": "unreachable", "message": EVIL, "verdicts": []}]
    calm = [result("gpu-01", T01="bad"), result("gpu-02")]
    clean, dirty = Page(page(calm, [calm])), Page(page(odd + down, [down, odd]))
    assert len(dirty.of("script")) == 1 and not dirty.of("img")
    known = {name for _tag, attributes, _around in clean.elements for name in attributes}
    assert {name for _tag, attributes, _around in dirty.elements for name in attributes} <= known


def test_the_policy_allows_this_style_and_this_script_alone():
    text = page(RESULTS)
    policy = next(attributes["content"] for attributes in Page(text).of("meta") if attributes.get("http-equiv"))
    for tag in ("style", "script"):
        part = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        assert f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" in policy
    assert (
        policy.startswith("default-src 'none'")
        and " style=" not in text
        and not re.search(r"(src|url\()\s*=?\s*['\"]?(http|//)", text)
    )


def test_what_could_not_be_looked_at_is_one_line_a_reason():
    entry = result("gpu-01", **{name: "unknown" for name in ("G01", "G09", "M02", "U01", "U02")}, T01="bad", T04="bad")
    reasons = {verdict["found"] for verdict in entry["verdicts"] if verdict["status"] == "unknown"}
    text = page([entry])
    assert text.count("<tr class=unknown>") == len(reasons) == 1 and text.count("<tr class=blocked>") == 1
    blocked = [verdict["id"] for verdict in entry["verdicts"] if verdict["status"] == "blocked"]
    assert f"<td>{', '.join(blocked)}<td>by T04" in text


def test_compared_with_the_run_before():
    before = [result("gpu-01", T01="bad"), result("gpu-02", U03="bad")]
    text = page([result("gpu-01", T01="bad"), result("gpu-02", P01="bad")], [before])
    assert (
        "1 new, 1 still there, 1 gone" in text
        and ">new</span>" in text
        and ">since 2026-01-01 00:00 UTC</span>" in text
    )
    assert len(Page(text).of("g")) == 2 and "first 0 of 2 healthy, now 0 of 2" in text
    assert "Compared" not in page(before) and "<svg" not in page(before)


def test_without_a_script_nothing_is_missing():
    text = page(RESULTS)
    assert (
        len(Page(text).of("button"))
        == len(re.findall(r"<form class=find hidden>.*?</form>", text)[0].split("<button")) - 1
    )


@pytest.mark.parametrize(("number", "limit"), [(1, 40_000), (300, 3_200_000)])
def test_size(number, limit):
    assert len(page([result("gpu-%02d" % (n % 30), T01="bad") for n in range(number)])) < limit
