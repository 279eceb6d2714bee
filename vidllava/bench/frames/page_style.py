"""How the report looks, light and dark: the one style sheet of the page, which fetches nothing."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f5f7f9; --ink: #1d232a; --soft: #56606b; --rule: #d9dee4; --grid: #e6eaee;
  --front: #b4bcc5; --mark: #e8f1fa; --mark-ink: #0b3d63;
  --c0: #0072b2; --c1: #d55e00; --c2: #00805d; --c3: #a8578a; --c4: #8a6d00; --c5: #3a8fc2; --cg: #6b7480;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181d; --panel: #1c2128; --ink: #e6eaee; --soft: #a3adb8; --rule: #39424d; --grid: #2a313a;
    --front: #55606c; --mark: #17324a; --mark-ink: #cfe6fa;
    --c0: #5db4f0; --c1: #ff9a52; --c2: #43d3a4; --c3: #e79cc5; --c4: #e3c34f; --c5: #8fd0f5; --cg: #97a2ae;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 24px 48px; }
h1 { font-size: 25px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 36px 0 8px; }
h3 { font-size: 15px; margin: 0 0 4px; }
p { margin: 0 0 8px; max-width: 78ch; }
p.legend { font-size: 13px; max-width: none; margin: 6px 0 0; }
.soft, figcaption { color: var(--soft); }
.advice { background: var(--mark); color: var(--mark-ink); border-radius: 6px; padding: 12px 16px;
  margin: 18px 0; }
.advice p { max-width: none; }
.advice p:first-child { font-weight: 600; }
.flag { white-space: nowrap; }
.advice p:last-child { margin: 0; }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 28px 32px; margin-top: 8px; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: 13px; margin-top: 2px; }
svg { display: block; max-width: 100%; height: auto; overflow: visible; }
.narrow { display: none; }
.key { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 6px 0 14px; padding: 0; list-style: none; }
.key li { display: flex; align-items: center; gap: 6px; font-size: 13px; }
.table { overflow-x: auto; border: 1px solid var(--rule); border-radius: 6px; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: 4px 8px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; background: var(--panel); }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
th:first-child { background: var(--panel); }
tbody tr:last-child td { border-bottom: 0; }
tr.best td { font-weight: 600; }
tr.group td { border-top: 2px solid var(--rule); }
details { margin: 14px 0; }
summary { font-size: 18px; font-weight: 700; margin: 20px 0 8px; cursor: pointer; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 3px 18px; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
code { font: 13px/1.4 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
.tick, .label { fill: var(--soft); }
.note { fill: var(--soft); font-size: 11px; }
.grid { stroke: var(--grid); } .axis { stroke: var(--soft); }
.level { stroke: var(--soft); stroke-dasharray: 2 3; }
.front { fill: none; stroke: var(--front); stroke-width: 4; }
.l { fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linejoin: round; }
.d1 { stroke-dasharray: 6 4; } .d2 { stroke-dasharray: 2 3; } .d3 { stroke-dasharray: 8 3 2 3; }
.w { stroke: currentColor; stroke-opacity: 0.45; }
.m { fill: currentColor; stroke: currentColor; stroke-width: 1.6; } .m.hollow { fill: var(--paper); }
svg .end { fill: currentColor; font-weight: 600; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); } .c3 { color: var(--c3); }
.c4 { color: var(--c4); } .c5 { color: var(--c5); } .cg { color: var(--cg); }
@media (max-width: 860px) {
  main { padding: 18px 14px 32px; }
  h1 { font-size: 21px; }
  .charts { grid-template-columns: minmax(0, 1fr); }
  .wide { display: none; } .narrow { display: block; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: 6px; }
}
@media print { .charts { break-inside: avoid; } }
"""
