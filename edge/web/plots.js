// Sparklines and the stage-time bar, drawn as SVG so that they follow the theme.

import { el, number, svg } from "./dom.js";
import { HISTORY } from "./store.js";
import { called, t } from "./words.js";

const WIDTH = 240;

/** A small plot of the last minutes: {node, update(values)}. null values are gaps. */
export function sparkline(label, unit, { height = 44, digits = 0, kind = "a" } = {}) {
  const area = svg("path", { class: `spark-area spark-${kind}` });
  const line = svg("path", { class: `spark-line spark-${kind}` });
  const value = el("strong", { text: "–" });
  const range = el("span", { class: "muted small" });
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${height}`, preserveAspectRatio: "none", class: "spark", role: "img", "aria-label": label },
    area, line,
  );
  const head = el("div", { class: "plot-head" }, el("span", { class: "muted", text: label }), value);
  const node = el("figure", { class: "plot" }, head, picture, range);
  function update(values) {
    const known = values.filter((v) => v !== null);
    if (!known.length) return;
    const top = Math.max(...known, 1e-9) * 1.15;
    const step = WIDTH / (HISTORY - 1);
    const start = HISTORY - values.length;
    let path = "";
    let first = null;
    let last = null;
    values.forEach((v, i) => {
      if (v === null) return;
      const x = ((start + i) * step).toFixed(1);
      path += `${values[i - 1] === null || first === null ? "M" : "L"}${x} ${(height - 2 - (v / top) * (height - 4)).toFixed(1)}`;
      first ??= x;
      last = x;
    });
    line.setAttribute("d", path);
    area.setAttribute("d", values.includes(null) ? "" : `${path}L${last} ${height}L${first} ${height}Z`);
    value.textContent = `${number(values.at(-1) ?? NaN, digits)} ${unit}`;
    range.textContent = t("plot.range", { least: number(Math.min(...known), digits), most: number(Math.max(...known), digits) });
    picture.setAttribute("aria-label", t("plot.now", { label, value: value.textContent, range: range.textContent }));
  }
  return { node, update };
}

/** Where the time of a frame goes: {node, update(stages)} for {stage: {median_ms, p99_ms}}. */
export function stageBar() {
  const bar = el("div", { class: "stage-bar", role: "img" });
  const rows = el("tbody");
  const head = el("thead", {}, el("tr", {},
    el("th", { scope: "col", text: t("stages.stage") }),
    el("th", { scope: "col", class: "num", text: t("stages.median") }),
    el("th", { scope: "col", class: "num", text: t("stages.p99") })));
  const node = el("div", {}, bar, el("table", { class: "table" }, head, rows));
  function update(stages) {
    const all = Object.entries(stages || {}).filter(([, times]) => Number.isFinite(times.median_ms));
    const total = all.reduce((sum, [, times]) => sum + times.median_ms, 0) || 1;
    bar.replaceChildren(...all.map(([name, times], i) => {
      const part = el("span", { class: `stage-${i % 8}`, title: t("stages.part", { name: called("stage", name), ms: number(times.median_ms, 2) }) });
      part.style.flexGrow = times.median_ms / total;
      return part;
    }));
    bar.setAttribute("aria-label", all.map(([name, times]) => t("stages.part", { name: called("stage", name), ms: number(times.median_ms, 1) })).join(", "));
    rows.replaceChildren(...all.map(([name, times], i) => el("tr", {},
      el("th", { scope: "row" }, el("i", { class: `dot stage-${i % 8}`, "aria-hidden": "true" }), called("stage", name)),
      el("td", { class: "num", text: number(times.median_ms, 2) }),
      el("td", { class: "num", text: number(times.p99_ms, 2) }))));
  }
  return { node, update };
}
