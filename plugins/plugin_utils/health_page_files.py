# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Style and script of the health page. Neither takes in anything that a host told."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--ok:#1a7f37;--bad:#cf222e;--odd:#8a5c00;--dim:#59636e;--line:#d1d9e0;--back:#fff;
--soft:#f6f8fa;--link:#0969da}
@media(prefers-color-scheme:dark){:root{--ok:#3fb950;--bad:#ff7b72;--odd:#d29922;--dim:#9198a1;--line:#3d444d;
--back:#0d1117;--soft:#151b23;--link:#4493f8}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:0 auto;padding:1.5rem 1rem 4rem;background:var(--back);
overflow-wrap:anywhere}
h1{margin:0;font-size:1.6rem}h2{margin:2rem 0 .5rem;font-size:1.25rem}
h3{margin:0 0 .4rem;font-size:1rem;font-weight:400}
p{margin:.3rem 0}a{color:var(--link)}.dim{color:var(--dim)}summary{cursor:pointer}
.pass,.healthy{color:var(--ok)}.fail,.crash,.unhealthy,.unreachable{color:var(--bad)}.warn{color:var(--odd)}
.unknown,.blocked{color:var(--dim)}
.tally{display:flex;flex-wrap:wrap;gap:.2rem 1.5rem}.tally b{font-size:1.5rem}
figure{margin:.8rem 0 0}figcaption{font-size:.85rem;color:var(--dim)}svg{display:block;max-width:100%;height:40px}
rect{fill:currentColor}
.find{display:flex;flex-wrap:wrap;gap:.4rem;align-items:center;position:sticky;top:0;z-index:1;background:var(--back);
padding:.6rem 0;margin-top:1rem}
.find[hidden],[hidden]{display:none!important}
input,button{font:inherit;color:inherit;background:var(--soft);border:1px solid var(--line);border-radius:.4rem;
padding:.25rem .7rem}
input{flex:1 1 12rem;min-width:0}button{cursor:pointer}
button[aria-pressed=true]{background:var(--link);border-color:var(--link);color:var(--back)}
.cause{border:1px solid var(--line);border-left:.3rem solid;border-radius:.4rem;padding:.7rem 1rem;margin:.8rem 0;
background:var(--soft)}
.cause>dl{color:CanvasText}
.note{border:1px solid;border-radius:1rem;padding:0 .6rem;font-size:.85rem;display:inline-block}
dl{display:grid;grid-template-columns:6rem minmax(0,1fr);margin:0;gap:.25rem .8rem}dt{color:var(--dim)}dd{margin:0}
dd p{margin:0}
.hosts a,.more a{display:inline-block;margin-right:.5rem}.more{display:inline-block;vertical-align:top}
.more[open]{display:block}
code,pre{font:.87em/1.45 ui-monospace,monospace}pre code{font-size:1em}
pre{white-space:pre-wrap;margin:.3rem 0;max-height:22rem;overflow:auto}
.command{display:flex;gap:.5rem;align-items:flex-start;justify-content:space-between;background:var(--back);
border:1px solid var(--line);border-radius:.4rem;padding:.5rem .6rem}
.command code{user-select:all}.command button{font-size:.85rem;padding:.05rem .6rem;flex:none}
.host{border:1px solid var(--line);border-radius:.4rem;margin:.4rem 0;padding:.35rem .8rem}
.host>summary b{margin-right:.5rem}.host>div{padding:.2rem 0 .4rem}
.host:not([open]){content-visibility:auto;contain-intrinsic-height:auto 2.2rem}div[id]{scroll-margin-top:7rem}
.chain{display:flex;flex-wrap:wrap;gap:.5rem .3rem;list-style:none;margin:.6rem 0;padding:0}
.chain li{display:flex;align-items:baseline;gap:.4rem;border:1px solid;border-radius:.4rem;padding:.05rem .5rem;
font-weight:600;font-size:.9rem}
.chain small{font-weight:400}.chain .broken{background:var(--bad);border-color:var(--bad);color:var(--back)}
.chain li:not(:last-child){margin-right:.9rem;position:relative}
.chain li:not(:last-child)::after{content:"\\2192";position:absolute;right:-1.05rem;color:var(--dim);font-weight:400}
.checks{border-collapse:collapse;width:100%;table-layout:fixed;margin:.5rem 0}.checks th{text-align:left;width:5.5rem}
.checks td:nth-child(2){width:36%}
.checks td,.checks th{padding:.35rem .6rem .35rem 0;border-top:1px solid var(--line);vertical-align:top}
.checks td{color:CanvasText}
.checks pre{color:var(--dim);border-left:2px solid var(--line);padding-left:.6rem}
.quiet{list-style:none;margin:.3rem 0;padding:0;columns:24rem;font-size:.9rem}
.quiet li{break-inside:avoid;padding:.1rem 0}.quiet i{color:var(--dim);font-style:normal}
@media(max-width:40rem){dl{grid-template-columns:1fr;gap:0}dt{margin-top:.4rem;font-size:.85rem}
.checks tr{display:block;border-top:1px solid var(--line);padding:.4rem 0}
.checks tr>*{display:block;width:auto!important;border:0;padding:0}.command{flex-direction:column}.find{position:static}
}
@media print{.find,.command button{display:none}}
"""

SCRIPT = """
"use strict";
(function () {
  var list = function (selector) { return Array.prototype.slice.call(document.querySelectorAll(selector)); };
  list(".command").forEach(function (box) {
    var code = box.querySelector("code"), button = document.createElement("button");
    var done = function () {
      button.textContent = "Copied";
      setTimeout(function () { button.textContent = "Copy"; }, 1500);
    };
    var select = function () {
      getSelection().selectAllChildren(code);
      if (document.execCommand("copy")) { done(); }
    };
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", function () {
      if (!navigator.clipboard) { return select(); }
      navigator.clipboard.writeText(code.textContent).then(done, select);
    });
    box.appendChild(button);
  });
  var reveal = function () {
    var name = "";
    try { name = decodeURIComponent(location.hash.slice(1)); } catch (error) { return; }
    var found = document.getElementById(location.hash.slice(1)) || document.getElementById(name);
    var folded = found && found.closest("details");
    if (folded) { folded.hidden = false; folded.open = true; found.scrollIntoView(); }
  };
  addEventListener("hashchange", reveal);
  reveal();
  var form = document.querySelector(".find");
  if (!form) { return; }
  var input = form.querySelector("input"), output = form.querySelector("output"), chosen = "";
  var buttons = list(".find button"), hosts = list(".host"), causes = list(".cause"), texts = new Map();
  var has = function (node, words) {
    if (!words.length) { return true; }
    if (!texts.has(node)) { texts.set(node, node.textContent.toLowerCase()); }
    return words.every(function (word) { return texts.get(node).indexOf(word) >= 0; });
  };
  var update = function () {
    var words = input.value.toLowerCase().split(/\\s+/).filter(Boolean), shown = 0;
    causes.forEach(function (node) { node.hidden = !has(node, words); });
    hosts.forEach(function (node) {
      node.hidden = !(!chosen || node.dataset.outcome === chosen) || !has(node, words);
      shown += node.hidden ? 0 : 1;
    });
    output.textContent = words.length || chosen ? shown + " of " + hosts.length + " hosts" : "";
  };
  buttons.forEach(function (button) {
    button.addEventListener("click", function () {
      chosen = chosen === button.dataset.outcome ? "" : button.dataset.outcome;
      buttons.forEach(function (other) {
        other.setAttribute("aria-pressed", String(other.dataset.outcome === chosen));
      });
      update();
    });
  });
  input.addEventListener("input", update);
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  form.hidden = false;
})();
"""
