"""What the page of a listing is made of: its style, its script, its icons, its frame. Helpers run this.

The page needs nothing else from anywhere, so its policy (Content Security Policy Level 3)
allows just this style and this script, by their hashes. Without the script it is whole: sorting and
paging are links. With it, a folder of one page is sorted in place, names are filtered and keys move.
What only works with the script keeps its room without it, so nothing jumps when it starts.
"""

import base64
import hashlib
from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c2430;--dim:#5b6675;--line:#e3e7ed;--soft:#f3f6fa;--paper:#fff;--link:#0b57c4;
--folder:#c27a00;--image:#0f7b5f;--media:#a3348c;--archive:#b4461f;--code:#2f5fd0;--text:#5b6675;--file:#7b8696}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--dim:#9aa6b5;--line:#2a323d;--soft:#1b222b;--paper:#12171e;
--link:#8ab8ff;--folder:#f2b84b;--image:#5fd0a8;--media:#e58fd0;--archive:#f39a6d;--code:#8fb0ff;--text:#9aa6b5;
--file:#8793a3}}
*{box-sizing:border-box}
html{scrollbar-gutter:stable}
body{margin:0 auto;padding:2rem 1.5rem 3rem;max-width:64rem;background:var(--paper);color:var(--ink);
font:1rem/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}
a{color:var(--link);text-decoration:none}
a:hover{text-decoration:underline}
a:focus-visible,input:focus-visible{outline:2px solid var(--link);outline-offset:-2px;border-radius:6px}
h1{margin:0;font-size:1.4rem;line-height:1.4;font-weight:600;overflow-wrap:anywhere}
h1 i{color:var(--dim);font-style:normal;font-weight:400;padding:0 .3em}
.bar{display:flex;gap:.5rem 1.5rem;align-items:center;justify-content:space-between;margin:.35rem 0 1rem}
.bar p,footer,.note,.none{margin:0;color:var(--dim);font-size:.9rem}
input{visibility:hidden;width:15rem;max-width:45vw;height:2.4rem;padding:0 .8rem;border:1px solid var(--line);
border-radius:8px;background:var(--soft);color:inherit;font:inherit;font-size:1rem}
input::placeholder{color:var(--dim);opacity:1}
.js input,.js footer p{visibility:visible}
table{width:100%;border-collapse:collapse}
caption,.sr{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
th{text-align:left;font-weight:400}
thead th{border-bottom:1px solid var(--line);font-size:.85rem}
thead a{display:inline-block;padding:.5rem .75rem;color:var(--dim)}
thead a:after{content:"";display:inline-block;width:.5em;height:.5em;margin-left:.5em;
border:solid transparent;border-width:0 1.5px 1.5px 0}
[aria-sort]{font-weight:600}
[aria-sort] a{color:var(--ink)}
[aria-sort] a:after{border-color:currentColor}
[aria-sort=descending] a:after{transform:translateY(-.15em) rotate(45deg)}
[aria-sort=ascending] a:after{transform:translateY(.15em) rotate(225deg)}
tbody tr{border-bottom:1px solid var(--line)}
tbody tr:hover,tbody tr:focus-within{background:var(--soft)}
tbody a{display:flex;gap:.75rem;align-items:center;padding:.55rem .75rem}
bdi{overflow-wrap:anywhere;white-space:pre-wrap;min-width:0}
svg{flex:none;width:1.25rem;height:1.25rem;fill:none;stroke:currentColor;stroke-width:1.6;stroke-linejoin:round;
stroke-linecap:round}
.folder{color:var(--folder)}.folder use{fill:currentColor;fill-opacity:.22}.image{color:var(--image)}
.audio,.video{color:var(--media)}.archive{color:var(--archive)}.code{color:var(--code)}.text{color:var(--text)}
.file{color:var(--file)}.up{color:var(--dim)}
.s,.t{width:1%;padding:0 .75rem;color:var(--dim);white-space:nowrap;font-size:.9rem;font-variant-numeric:tabular-nums}
.s{text-align:right}
thead .s,thead .t{padding:0}
thead .s a{display:flex;flex-direction:row-reverse;align-items:center}
thead .s a:after{margin:0 .5em 0 0}
[hidden]{display:none!important}
.none,.note{padding:1.25rem .75rem}
.pages{display:flex;gap:1.25rem;justify-content:center;align-items:center;padding:1.25rem 0;
font-variant-numeric:tabular-nums}
.pages a,.pages s{padding:.4rem .9rem;border:1px solid var(--line);border-radius:8px}
.pages s{color:var(--dim);text-decoration:none;opacity:.6}
footer{padding:1.25rem .75rem}
footer p{visibility:hidden;margin:0;display:flex;flex-wrap:wrap;gap:.25rem 1.25rem}
kbd{display:inline-block;min-width:1.6em;padding:0 .4em;border:1px solid var(--line);border-radius:5px;
background:var(--soft);color:var(--ink);font:inherit;font-size:.85em;text-align:center}
@media(max-width:40rem){body{padding:1.25rem .75rem 2rem}h1{font-size:1.2rem;padding:0 .25rem}
.bar{flex-direction:column;align-items:stretch;padding:0 .25rem}input{width:100%;max-width:none}
tr{display:grid;grid-template-columns:auto 1fr;align-items:baseline}
thead tr{grid-template-columns:1fr auto auto;border-bottom:1px solid var(--line)}thead th{border:0}
thead a{padding:.6rem .5rem}
tbody th{grid-column:1/-1}tbody a{padding:.6rem .5rem .2rem}
tbody .s,tbody .t{width:auto;padding:0 0 .55rem 2.5rem;font-size:.85rem}tbody .s{text-align:left}
tbody tr .t{padding-left:.75rem}tbody .d .t{padding-left:2.5rem}
.d .s,.up .s,.up .t{display:none!important}tbody .up a{padding-bottom:.6rem}
footer{display:none}}
@media(hover:none){footer{display:none}}
@media print{input,footer{display:none}}
"""

SCRIPT: Final = """
(() => {
const $ = selector => document.querySelector(selector)
const body = $('#list'), box = $('input'), said = $('#said'), heads = [...document.querySelectorAll('thead th')]
const rows = [...body.rows].map(row => ({
  row, text: row.querySelector('bdi').textContent.toLowerCase(), folder: row.className == 'd',
  name: +row.dataset.n, size: +row.dataset.s, time: +row.dataset.t}))
document.documentElement.className = 'js'

function sort(head) {
  const down = head.ariaSort == 'ascending', key = head.dataset.key, sign = down ? -1 : 1
  rows.sort((a, b) => b.folder - a.folder || sign * (a[key] - b[key]) || a.name - b.name)
  body.append(...rows.map(one => one.row))
  for (const other of heads) {
    other.removeAttribute('aria-sort')
    link(other, 'asc')
  }
  head.setAttribute('aria-sort', down ? 'descending' : 'ascending')
  link(head, down ? 'asc' : 'desc')
  history.replaceState(null, '', `?sort=${key}&order=${down ? 'desc' : 'asc'}`)
}
function link(head, order) {
  head.firstChild.href = `?sort=${head.dataset.key}&order=${order}`
}
function filter() {
  const wanted = box.value.toLowerCase()
  let shown = 0
  for (const one of rows) shown += !(one.row.hidden = !one.text.includes(wanted))
  said.textContent = !wanted ? said.dataset.all : shown ? `${shown} of ${rows.length} shown` : 'No name matches'
}
function links() {
  return [...document.querySelectorAll('tbody tr:not([hidden]) a')]
}
function move(step) {
  const all = links(), at = all.indexOf(document.activeElement)
  const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : at + step]
  if (next) next.focus()
}
function first() {
  return rows.map(one => one.row).find(row => !row.hidden)?.querySelector('a')
}
function up() {
  $('.up a')?.click()
}
function find() {
  box.focus()
  box.select()
}
const keys = {
  ArrowDown: () => move(1), j: () => move(1), ArrowUp: () => move(-1), k: () => move(-1),
  Backspace: up, u: up, '/': find}
const typing = {
  Enter: () => first()?.click(), ArrowDown: () => first()?.focus(),
  Escape: () => { box.value = ''; filter(); box.blur() }}

if (body.dataset.whole) for (const head of heads) head.firstChild.addEventListener('click', event => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return
  event.preventDefault()
  sort(head)
})
box.addEventListener('input', filter)
addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return
  const table = event.target == box ? typing : keys
  if (!Object.hasOwn(table, event.key)) return
  event.preventDefault()
  table[event.key]()
})
})()
"""

_DRAWINGS: Final = {
    "folder": "M2.5 16V5a1 1 0 0 1 1-1h4l2 2.2h7a1 1 0 0 1 1 1V16a1 1 0 0 1-1 1h-13a1 1 0 0 1-1-1z",
    "file": "M11.5 2.5h-6a1 1 0 0 0-1 1v13a1 1 0 0 0 1 1h9a1 1 0 0 0 1-1v-10zv4h4",
    "text": "M11.5 2.5h-6a1 1 0 0 0-1 1v13a1 1 0 0 0 1 1h9a1 1 0 0 0 1-1v-10zv4h4M7.5 10h5M7.5 13.5h5",
    "code": "M6.5 5.5 2 10l4.5 4.5M13.5 5.5 18 10l-4.5 4.5M11.5 4l-3 12",
    "image": "M3.5 3.5h13a1 1 0 0 1 1 1v11a1 1 0 0 1-1 1h-13a1 1 0 0 1-1-1v-11a1 1 0 0 1 1-1z"
    "M2.5 14.5l4.5-4.5 3.5 3.5 2.5-2.5 4.5 4M12.5 7.5h.01",
    "audio": "M7.5 15V4.5l9-2v10.5M7.5 15a2.3 2 0 1 1-4.6 0 2.3 2 0 0 1 4.6 0z"
    "M16.5 13a2.3 2 0 1 1-4.6 0 2.3 2 0 0 1 4.6 0z",
    "video": "M3.5 3.5h13a1 1 0 0 1 1 1v11a1 1 0 0 1-1 1h-13a1 1 0 0 1-1-1v-11a1 1 0 0 1 1-1zM8 7v6l5-3z",
    "archive": "M2.5 3.5h15v4h-15zM3.5 7.5v9h13v-9M8 11h4",
    "up": "M10 16.5V4M4.5 9.5 10 4l5.5 5.5",
}

_ENDINGS: Final = {
    "image": "avif bmp gif heic ico jpeg jpg jxl png psd svg tif tiff webp",
    "audio": "aac aiff flac m4a mid mp3 oga ogg opus wav weba wma",
    "video": "avi m4v mkv mov mp4 mpeg mpg ogv ts webm wmv",
    "archive": "7z apk br bz2 cab deb gz iso jar lz4 rar rpm tar tgz whl xz zip zst",
    "code": "c cc cpp cs css go h hpp htm html java js json jsx kt lua mjs php pl py rb rs sh sql swift toml tsx vue "
    "wasm xml yaml yml",
    "text": "adoc bib conf csv diff doc docx epub ini log markdown md odp ods odt org patch pdf ppt pptx rst rtf tex "
    "text tsv txt xls xlsx",
}
KINDS: Final = {ending: kind for kind, endings in _ENDINGS.items() for ending in endings.split()}
"""Ending of a name -> which icon it gets; ``file`` is for the others."""

ICONS: Final = {kind: f'<svg class="{kind}" aria-hidden="true"><use href="#i-{kind}"/></svg>' for kind in _DRAWINGS} | {
    "folder": '<svg class="folder" role="img" aria-label="Folder"><use href="#i-folder"/></svg>'
}
"""Kind -> its icon, as it stands before a name."""

_SYMBOLS = "".join(
    f'<symbol id="i-{kind}" viewBox="0 0 20 20"><path d="{path}"/></symbol>' for kind, path in _DRAWINGS.items()
)

PAGE: Final = f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>%(title)s</title>
<style>{STYLE.replace("%", "%%")}</style>
</head>
<body>
<svg hidden>{_SYMBOLS}</svg>
<header>
<nav aria-label="Path"><h1>%(crumbs)s</h1></nav>
<div class="bar"><p id="said" role="status" data-all="%(summary)s">%(summary)s</p>
<label><span class="sr">Filter</span><input type="search" placeholder="%(filter)s" autocomplete="off" \
spellcheck="false"></label></div>
</header>
<main>
<table>
<caption>%(title)s</caption>
<thead><tr>%(heads)s</tr></thead>
<tbody>%(parent)s</tbody>
<tbody id="list"%(whole)s>
%(rows)s</tbody>
</table>
%(notes)s</main>
<footer><p><span><kbd>/</kbd> filter</span><span><kbd>\N{UPWARDS ARROW}</kbd> <kbd>\N{DOWNWARDS ARROW}</kbd> \
move</span><span><kbd>Enter</kbd> open</span><span><kbd>u</kbd> up</span></p></footer>
<script>{SCRIPT.replace("%", "%%")}</script>
</body>
</html>
"""
"""The frame, for the ``%`` operator. All that is put into it is HTML already."""


def _source(inline: str) -> str:
    digest = hashlib.sha256(inline.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


POLICY: Final = (
    f"default-src 'none'; style-src {_source(STYLE)}; script-src {_source(SCRIPT)}; "
    # The icon that a browser asks a site for by itself counts as an image.
    "img-src 'self'; base-uri 'none'; form-action 'none'"
).encode("ascii")
"""The Content-Security-Policy of every page."""
