"""The style sheet of a report: light, dark and print, from 320 pixels of width upwards.

Colours follow Okabe and Ito's palette, darkened on the light page and lightened on the dark one to
a contrast of at least 4.5 to 1 for words and 3 to 1 for curves.  What a colour tells, a pattern, a
dash or a word tells too.
"""

from typing import Final

STYLE: Final = """
:root {
  color-scheme: light dark;
  --page: #fcfcfa; --ink: #1b2430; --muted: #566170; --grid: #d9dee5;
  --shade: #eceff4; --accent: #00639c; --good: #00694f; --bad: #b3261e; --bad-page: #fdecea;
  --resident: #0072b2; --free: #b45f06; --reported: #8a3f8f; --balloon: #00795a;
  --cache: #8a6800; --dirty: #b3402f; --swapped: #5b6776;
  --cause-0: #0072b2; --cause-1: #b45f06; --cause-2: #00795a; --cause-3: #8a3f8f;
  --cause-4: #5b6472;
  --run-0: #0072b2; --run-1: #b45f06; --run-2: #00795a; --run-3: #8a3f8f;
  --run-4: #8a6800; --run-5: #2f7fae; --run-6: #b3402f; --run-7: #5b6776;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #11151b; --ink: #e8ecf2; --muted: #a0acba; --grid: #333c48;
    --shade: #1e242d; --accent: #6cbdf0; --good: #4fc9a4; --bad: #ff9a8f; --bad-page: #3a1c1a;
    --resident: #56b4e9; --free: #f0a44b; --reported: #d79be2; --balloon: #2fbf97;
    --cache: #e3cf57; --dirty: #f08a7a; --swapped: #a0acba;
    --cause-0: #56b4e9; --cause-1: #f0a44b; --cause-2: #2fbf97; --cause-3: #d79be2;
    --cause-4: #aab2bf;
    --run-0: #56b4e9; --run-1: #f0a44b; --run-2: #2fbf97; --run-3: #d79be2;
    --run-4: #e3cf57; --run-5: #8fc7e8; --run-6: #f08a7a; --run-7: #a0acba;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  font-variant-numeric: tabular-nums;
}
.page { max-width: 68rem; margin: 0 auto; padding: 3rem 2rem 4rem; }
h1, h2, h3 { line-height: 1.22; margin: 0; text-wrap: balance; }
h1, .question {
  font-family: Charter, "Iowan Old Style", "Source Serif 4", "Noto Serif", Georgia, serif;
  font-weight: 600; letter-spacing: -0.012em;
}
h1 { font-size: clamp(1.6rem, 4.4vw, 2.5rem); max-width: 27em; }
h2 { font-size: 1.5rem; }
section > h2 { margin-bottom: 1rem; }
.question { font-size: 1.3rem; margin: 0.5rem 0 0; }
h3 { font-size: 1.06rem; margin: 0 0 0.7rem; }
a { color: var(--accent); text-underline-offset: 0.18em; }
a:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.eyebrow {
  margin: 0 0 0.8rem; color: var(--muted); font-size: 0.88rem;
  display: flex; flex-wrap: wrap; gap: 0.15rem 0.6rem;
}
.eyebrow > :not(:last-child)::after { content: "·"; margin-left: 0.6rem; color: var(--muted); }
.eyebrow strong { color: var(--accent); font-weight: 650; }
.answer { font-size: 1.16rem; line-height: 1.6; max-width: 46em; margin: 1.1rem 0 0; }
.alarm {
  border-left: 4px solid var(--bad); background: var(--bad-page);
  padding: 0.8rem 1rem; border-radius: 0 6px 6px 0;
}
.tiles {
  list-style: none; margin: 2rem 0 0; padding: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(11.5rem, 1fr));
}
.tiles li { border-top: 3px solid var(--accent); padding: 0.6rem 0 0; }
.tiles li.bad { border-color: var(--bad); }
.tiles .name, .tiles .more { display: block; color: var(--muted); font-size: 0.88rem; }
.tiles .number { display: block; font-size: 1.75rem; font-weight: 640; line-height: 1.3; }
.tiles .number.none {
  font-size: 1.1rem; font-weight: 500; color: var(--muted); padding: 0.45rem 0;
}
.tiles .bad .number { color: var(--bad); }
section { margin-top: 2.6rem; }
article { margin-top: 4.5rem; border-top: 3px solid var(--ink); padding-top: 1.8rem; }
figure { margin: 0; }
figure + figure, figure + .scroll { margin-top: 1.8rem; }
.picture svg { display: block; width: 100%; height: auto; overflow: visible; }
.picture svg * { stroke-linejoin: round; stroke-linecap: butt; }
.narrow { display: none; }
figcaption, .note { color: var(--muted); font-size: 0.88rem; margin: 0.6rem 0 0; max-width: 60em; }
.pair {
  display: grid; gap: 2.6rem 3.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr));
}
.pair > section { min-width: 0; }
.columns { columns: 3 19rem; column-gap: 3rem; }
.columns table { break-inside: avoid; margin: 0 0 1.7rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.94rem; }
caption { text-align: left; font-weight: 650; padding: 0 0 0.35rem; }
th, td { padding: 0.3rem 0; border-top: 1px solid var(--grid); vertical-align: baseline; }
th { text-align: left; font-weight: 400; color: var(--muted); padding-right: 1rem; }
td { text-align: right; white-space: nowrap; }
thead th {
  font-weight: 600; text-align: right; padding-left: 0.9rem; padding-right: 0;
  vertical-align: bottom;
}
thead th:first-child { text-align: left; padding-left: 0; }
tbody td { padding-left: 0.9rem; }
tbody th { color: var(--ink); }
.columns tbody th { color: var(--muted); }
td.left { text-align: left; white-space: normal; }
.scroll { overflow-x: auto; }
.scroll th { white-space: nowrap; }
.none { color: var(--muted); font-style: italic; }
.bad td, td.bad { color: var(--bad); font-weight: 650; }
.better { color: var(--good); font-weight: 600; }
.worse { color: var(--bad); font-weight: 600; }
.same { color: var(--muted); }
.mechanism { margin-top: 2.6rem; }
.capacity h3 { margin-top: 1.8rem; }
.answers { padding-left: 1.4rem; }
.answers li, .mechanism h3 { overflow-wrap: anywhere; }
.wrapped td { white-space: normal; min-width: 5rem; }
.wrapped thead th { white-space: normal; }
.orders td, .orders thead th { text-align: left; white-space: normal; }
.orders li { overflow-wrap: anywhere; }
.orders ol { margin: 0; padding-left: 1.4rem; }
.bars {
  display: grid; grid-template-columns: auto 1fr auto; gap: 0.55rem 0.9rem; margin: 0;
  align-items: center;
}
.bars dt { color: var(--muted); grid-column: 1; }
.bars dd { margin: 0; display: contents; }
.bars .track { height: 0.8rem; background: var(--shade); border-radius: 2px; }
.bars .fill {
  display: block; height: 100%; background: var(--resident); border-radius: 2px;
  min-width: 2px;
}
.stack { display: flex; height: 2.1rem; gap: 2px; }
.stack span { min-width: 4px; border-radius: 2px; }
.legend { list-style: none; margin: 0.9rem 0 0; padding: 0; }
.legend li { display: flex; gap: 0.65rem; align-items: baseline; padding: 0.22rem 0; }
.legend .swatch {
  flex: none; width: 1.1rem; height: 0.8rem; border-radius: 2px; align-self: center;
}
.legend .size { margin-left: auto; white-space: nowrap; }
.cause-0 { background: var(--cause-0); }
.cause-1 {
  background: repeating-linear-gradient(45deg, var(--cause-1) 0 4px, transparent 4px 7px);
}
.cause-2 {
  background: repeating-linear-gradient(90deg, var(--cause-2) 0 2px, transparent 2px 5px);
}
.cause-3 {
  background: repeating-linear-gradient(-45deg, var(--cause-3) 0 2px, transparent 2px 5px);
}
.cause-4 {
  background: radial-gradient(var(--cause-4) 30%, transparent 35%) 0 0 / 5px 5px;
}
.cause-1, .cause-2, .cause-3, .cause-4 { box-shadow: inset 0 0 0 1px currentColor; }
.cause-1 { color: var(--cause-1); }
.cause-2 { color: var(--cause-2); }
.cause-3 { color: var(--cause-3); }
.cause-4 { color: var(--cause-4); }
.verdicts { list-style: none; padding: 0; margin: 0; }
.verdicts li { display: flex; gap: 0.9rem; padding: 0.4rem 0; border-top: 1px solid var(--grid); }
.verdicts .verdict { flex: none; width: 5.2rem; font-weight: 650; color: var(--good); }
.verdicts .failed .verdict { color: var(--bad); }
.published { list-style: none; padding: 0; margin: 0; max-width: 60em; }
.published li { padding: 0.4rem 0; border-top: 1px solid var(--grid); }
.published strong { font-weight: 600; }
.published p { margin: 0.1rem 0 0; }
code, pre {
  font: 0.9em/1.5 ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", monospace;
}
pre {
  background: var(--shade); border-radius: 6px; padding: 0.8rem 1rem; margin: 0.4rem 0 1.2rem;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
pre.mail { white-space: pre; overflow-x: auto; overflow-wrap: normal; }
.manifest {
  display: grid; grid-template-columns: minmax(7rem, auto) 1fr; gap: 0.2rem 1.2rem; margin: 0;
  font-size: 0.92rem;
}
.manifest dt { color: var(--muted); }
.manifest dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
.files {
  list-style: none; padding: 0; margin: 0.4rem 0 0; display: flex; flex-wrap: wrap;
  gap: 0.3rem 1.4rem;
}
nav ul {
  list-style: none; padding: 0; margin: 1.2rem 0 0; display: flex; flex-wrap: wrap;
  gap: 0.3rem 1.4rem;
}
footer {
  margin-top: 4rem; border-top: 1px solid var(--grid); padding-top: 1rem; color: var(--muted);
  font-size: 0.86rem;
}
@media (max-width: 40rem) {
  .page { padding: 1.6rem 1.1rem 3rem; }
  .wide { display: none; }
  .narrow { display: block; }
  .answer { font-size: 1.06rem; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 1.1rem; margin-top: 1.5rem; }
  .tiles .number { font-size: 1.4rem; }
  .manifest { grid-template-columns: 1fr; gap: 0; }
  .wrapped table { font-size: 0.84rem; }
  .wrapped tbody th { white-space: normal; padding-right: 0.3rem; overflow-wrap: anywhere; }
  .wrapped tbody th { min-width: 7.6rem; }
  .wrapped tbody td { padding-left: 0.5rem; min-width: 3.4rem; }
  .mail { font-size: 0.72rem; }
  .manifest dd { margin-bottom: 0.5rem; }
}
@media print {
  :root {
    color-scheme: light;
    --page: #fff; --ink: #000; --muted: #444; --grid: #ccc; --shade: #f1f3f6;
    --accent: #004f7c; --good: #00563f; --bad: #9c1c15; --bad-page: #fff;
    --resident: #0072b2; --free: #b45f06; --reported: #8a3f8f;
    --balloon: #00795a; --cache: #8a6800; --dirty: #b3402f; --swapped: #5b6776;
    --cause-0: #0072b2; --cause-1: #b45f06; --cause-2: #00795a; --cause-3: #8a3f8f;
    --run-0: #0072b2; --run-1: #b45f06; --run-2: #00795a; --run-3: #8a3f8f;
    --run-4: #8a6800; --run-5: #2f7fae; --run-6: #b3402f; --run-7: #5b6776;
  }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 10pt; }
  .page { padding: 0; max-width: none; }
  figure, table, .tiles, .bars, .stack, pre { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  article { break-before: page; border: 0; }
  nav { display: none; }
}
"""
