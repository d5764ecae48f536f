// One function per picture: from the page's data and the state of its controls to plotly traces, a layout, and the same
// numbers as rows of a table (for readers who do not see the picture).
"use strict";

const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const MARKERS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x"];
const STATS = { mean: "mean activation", std: "standard deviation", zeros: "fraction of zeros", p: "probability to drop" };
const NARROW = 640; // px: below, panels stand one above the other

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const faded = (hex, alpha) => `rgba(${[1, 3, 5].map((n) => parseInt(hex.slice(n, n + 2), 16)).join(",")},${alpha})`;
const short = (value, digits = 3) => (value === null || value === undefined ? "–" : Number(value).toPrecision(digits));
const columnOf = (controls) => DATA.columns.find(({ key }) => key === controls.column);
const fixed = (value, { decimals }) => value?.toFixed(decimals) ?? "–";
const last = (values) => (values && values.length ? values[values.length - 1] : null);

function styleOf(s) {
  return {
    line: { color: color(s.color), dash: DASHES[s.dash % DASHES.length], width: 2 },
    marker: { color: color(s.color), symbol: MARKERS[s.dash % MARKERS.length], size: 8 },
    name: s.name,
    legendgroup: s.name,
  };
}

function line(s, x, y, more = {}) {
  return { type: "scatter", mode: "lines", x, y, ...styleOf(s), hovertemplate: `%{y:.4~g}<extra>${escaped(s.name)}</extra>`, ...more };
}

// The interval around a line. Where a seed is alone there is none.
function band(s, x, mean, half, more = {}) {
  const at = x.map((_, n) => n).filter((n) => mean[n] !== null && half[n] !== null);
  const back = [...at].reverse();
  return {
    type: "scatter", mode: "lines", fill: "toself", fillcolor: faded(color(s.color), 0.14), line: { width: 0 },
    x: [...at, ...back].map((n) => x[n]),
    y: [...at.map((n) => mean[n] + half[n]), ...back.map((n) => mean[n] - half[n])],
    hoverinfo: "skip", showlegend: false, legendgroup: s.name, ...more,
  };
}

// A law by depth: a broad curve behind the others.
function theory(y, name, more = {}) {
  return {
    type: "scatter", mode: "lines", x: y.map((_, l) => l + 1), y, name, line: { color: color("muted"), width: 5 }, opacity: 0.35,
    hovertemplate: `${name}: %{y:.3f}<extra></extra>`, ...more,
  };
}

// A name for a tick; on a phone long ones lose their middle, since their ends tell them apart.
const fitted = (name, narrow) => escaped(narrow && name.length > 18 ? `${name.slice(0, 9)}…${name.slice(-8)}` : name);
const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

// Two panels with the same scales: side by side, or one above the other on a phone.
function panels(width, titles, x, y) {
  const stacked = width < NARROW;
  const room = stacked ? [[0.57, 1], [0, 0.43]] : [[0, 0.485], [0.515, 1]];
  const layout = { height: stacked ? 620 : 380, annotations: [] };
  titles.forEach((text, n) => {
    const id = n ? "2" : "";
    layout[`xaxis${id}`] = { ...x, anchor: `y${id}`, domain: stacked ? [0, 1] : room[n], ...(n ? { matches: "x" } : {}) };
    layout[`yaxis${id}`] = { ...y, anchor: `x${id}`, domain: stacked ? room[n] : [0, 1], ...(n ? { matches: "y" } : {}) };
    if (n && !stacked) Object.assign(layout.yaxis2, { title: undefined, showticklabels: false });
    layout.annotations.push({
      text: `<b>${text}</b>`, showarrow: false, xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom",
      x: stacked ? 0 : room[n][0], y: stacked ? room[n][1] : 1, yshift: 6, font: { size: 13 },
    });
  });
  return layout;
}

const panel = (n) => (n ? { xaxis: "x2", yaxis: "y2" } : {});

// Strategies side by side at each depth, so that equal values do not hide each other.
const dodged = (points, n, count) => points.map((_, l) => l + 1 + (n - (count - 1) / 2) * Math.min(0.05, 0.5 / count));

// Ticks for dropout layers in order of depth, with their names where there is room for them.
function depthAxis(all, width) {
  const longest = all.reduce((a, s) => (s.depth.layers.length > a.length ? s.depth.layers : a), []);
  const same = all.every((s) => s.depth.layers.every((name, n) => name === longest[n]));
  const axis = { title: "dropout layer, in order of depth", range: [0.7, longest.length + 0.3] };
  const perTick = (width < NARROW ? width : width / 2) / Math.max(longest.length, 1);
  if (longest.length <= 12) axis.tickvals = longest.map((_, n) => n + 1);
  if (longest.length <= 12 && same) {
    const fits = longest.every((name) => name.length * 7.2 < perTick);
    if (fits) axis.ticktext = longest.map((name, n) => `${n + 1}<br>${escaped(name)}`);
  }
  return axis;
}

const PICTURES = {
  score({ strategies: all, width, controls }) {
    const traces = [];
    const narrow = width < NARROW;
    const column = columnOf(controls);
    const { axis, unit } = column;
    const of = (s) => s.scores[column.key];
    const strategies = all.filter((s) => of(s).mean !== null);
    strategies.forEach((s, n) => {
      const { mean, half, values, runs } = of(s);
      traces.push({
        ...styleOf(s), type: "scatter", mode: "markers", x: values, y: values.map(() => n + 0.26), showlegend: false,
        marker: { ...styleOf(s).marker, size: 6, opacity: 0.6 }, customdata: runs.map(escaped),
        hovertemplate: `%{customdata}: %{x:.${column.decimals}f} ${escaped(unit)}<extra>${escaped(s.name)}</extra>`,
      });
      traces.push({
        ...styleOf(s), type: "scatter", mode: "markers", x: [mean], y: [n], marker: { ...styleOf(s).marker, size: 11 },
        error_x: { array: [half ?? 0], thickness: 2, width: 6, color: color(s.color) },
        hovertemplate: `mean ${fixed(mean, column)}${half === null ? "" : ` ± ${fixed(half, column)}`} ${escaped(unit)}<extra>${escaped(s.name)}</extra>`,
      });
    });
    return {
      traces,
      layout: {
        height: 110 + 46 * strategies.length, hovermode: "closest",
        xaxis: { title: axis, range: reachOf(strategies.map(of), unit === "%") },
        yaxis: {
          tickvals: strategies.map((_, n) => n), ticktext: strategies.map((s) => fitted(s.name, narrow)), automargin: true,
          range: [strategies.length - 0.4, -0.6], showgrid: false, ticks: "",
        },
      },
      table: {
        head: ["strategy", `${axis}, mean`, "± 95 %", "single runs"],
        rows: strategies.map((s) => [
          s.name, fixed(of(s).mean, column), fixed(of(s).half, column), of(s).values.map((v) => fixed(v, column)).join(", "),
        ]),
      },
    };
  },

  curves({ strategies, controls: { metric } }) {
    const having = strategies.filter((s) => s.curves[metric]);
    const traces = having.flatMap((s) => {
      const { step, mean, half } = s.curves[metric];
      return [band(s, step, mean, half), line(s, step, mean, { connectgaps: true })];
    });
    const title = DATA.curveTitles[metric];
    return {
      traces,
      layout: {
        height: 400, hovermode: "x", xaxis: { title: "optimizer step" },
        yaxis: { title, range: reachOf(having.map((s) => s.curves[metric]), title.endsWith("%") && !metric.startsWith("gap")) },
      },
      table: {
        head: ["strategy", `${title}, at the end`, "± 95 %"],
        rows: having.map(({ name, curves: { [metric]: c } }) => [name, short(last(c.mean)), short(last(c.half), 2)]),
      },
    };
  },

  activations({ strategies, width, controls: { layer, stat } }) {
    const modes = ["train", "eval"];
    const of = (s, mode) => s.activations[mode]?.values[stat]?.[layer];
    const traces = modes.flatMap((mode, n) =>
      strategies.filter((s) => of(s, mode)).map((s) =>
        line(s, s.activations[mode].step, of(s, mode), { ...panel(n), showlegend: !n, connectgaps: true })),
    );
    const name = STATS[stat];
    return {
      traces,
      layout: {
        ...panels(width, ["in training", "in eval"], { title: "optimizer step" }, { title: name, rangemode: "tozero" }),
        hovermode: "x",
      },
      table: {
        head: ["strategy", `${name} in training, at the end`, "in eval, at the end"],
        rows: strategies.map((s) => [s.name, ...modes.map((mode) => short(last(of(s, mode))))]),
      },
    };
  },

  profile({ strategies, width, controls: { stat } }) {
    const modes = ["train", "eval"];
    const of = (s, mode, layer) => last(s.activations[mode]?.values[stat]?.[layer]);
    const rows = DATA.layers.map((name, layer) => [name, layer])
      .filter(([, layer]) => strategies.some((s) => modes.some((mode) => of(s, mode, layer) !== null)));
    const names = rows.map(([name]) => name);
    const traces = modes.flatMap((mode, n) =>
      strategies.filter((s) => s.activations[mode]?.values[stat]).map((s, k, those) =>
        line(s, dodged(rows, k, those.length), rows.map(([, layer]) => of(s, mode, layer)), {
          ...panel(n), mode: "lines+markers", showlegend: !n, connectgaps: true, customdata: names,
          hovertemplate: `%{customdata}: %{y:.4~g}<extra>${escaped(s.name)}</extra>`,
        })),
    );
    const ticks = names.length <= 20 && { tickvals: names.map((_, n) => n + 1), ticktext: names.map((name) => fitted(name, true)), tickangle: -60 };
    const layout = panels(width, ["in training", "in eval"], { title: "layer, in order of depth", ...ticks }, { title: STATS[stat], rangemode: "tozero" });
    if (width < NARROW) Object.assign(layout.xaxis, { showticklabels: false, title: undefined }); // those of the panel below
    return {
      traces,
      layout: { ...layout, height: layout.height + (ticks ? 100 : 0), hovermode: "closest" },
      table: {
        head: ["strategy", "layer", `${STATS[stat]} in training`, "in eval"],
        rows: strategies.flatMap((s) => rows.map(([name, layer]) => [s.name, name, ...modes.map((mode) => short(of(s, mode, layer)))])),
      },
    };
  },

  gain({ strategies, width }) {
    const modes = ["train", "eval"];
    const traces = modes.flatMap((mode, n) =>
      strategies.filter((s) => s.depth.gain[mode].last).map((s, k, those) => {
        const { mean, half } = s.depth.gain[mode].last;
        return line(s, dodged(mean, k, those.length), mean, {
          ...panel(n), mode: "lines+markers", showlegend: !n, customdata: s.depth.layers,
          error_y: { array: half.map((h) => h ?? 0), thickness: 1.2, width: 4, color: color(s.color) },
          hovertemplate: `%{customdata}: %{y:.3f}<extra>${escaped(s.name)}</extra>`,
        });
      }),
    );
    // One curve per law and panel, not per strategy: those of equal rates share theirs.
    modes.forEach((mode, n) => {
      const laws = new Set(strategies.filter((s) => s.depth.expected.gain).map((s) => JSON.stringify(s.depth.expected.gain[mode])));
      traces.unshift(...[...laws].map((law) => theory(JSON.parse(law), "theory", panel(n))));
    });
    const layout = panels(width, ["in training", "in eval"], depthAxis(strategies, width),
      { title: "gain: mean out / mean in", range: [0, 1.2 * Math.max(1, ...traces.flatMap((t) => t.y))] });
    const qs = strategies.filter((s) => s.depth.sameRate && s.depth.law !== "none").map((s) => s.depth.q);
    const reference = [[1, "1: mean kept"], ...[...new Set(qs)].slice(0, 3).map((q) => [q, `q = ${Number(short(q))}`])];
    layout.shapes = modes.flatMap((_, n) => reference.map(([y]) => ({
      type: "line", xref: `x${n ? "2" : ""} domain`, x0: 0, x1: 1, yref: n ? "y2" : "y", y0: y, y1: y, layer: "below",
      line: { color: color("muted"), width: 1, dash: "dot" },
    })));
    modes.forEach((_, n) => reference.forEach(([y, text]) => layout.annotations.push({
      text, showarrow: false, xref: `x${n ? "2" : ""} domain`, yref: n ? "y2" : "y", x: 0.01, y, xanchor: "left", yanchor: "bottom",
      font: { size: 11, color: color("muted") },
    })));
    return {
      traces,
      layout: { ...layout, hovermode: "closest" },
      table: {
        head: ["strategy", "layer", "gain in training", "gain in eval", "theory, training", "theory, eval"],
        rows: strategies.flatMap((s) => s.depth.layers.map((name, l) => [
          s.name, name, ...modes.map((mode) => short(s.depth.gain[mode].last?.mean[l])),
          ...modes.map((mode) => short(s.depth.expected.gain?.[mode][l])),
        ])),
      },
    };
  },

  ratio({ strategies, width, controls: { when } }) {
    const having = strategies.filter((s) => s.depth.ratio[when]);
    const traces = having.map((s, k) => {
      const { mean, half } = s.depth.ratio[when];
      return line(s, dodged(mean, k, having.length), mean, {
        mode: "lines+markers", customdata: s.depth.layers, connectgaps: true,
        error_y: { array: half.map((h) => h ?? 0), thickness: 1.2, width: 4, color: color(s.color) },
        hovertemplate: `%{customdata}: %{y:.3f}<extra>${escaped(s.name)}</extra>`,
      });
    });
    // One curve per law, not per strategy: inverted, classic and spatial share theirs.
    const laws = new Map();
    for (const s of having) {
      if (s.depth.expected.ratio && s.depth.law !== "none") laws.set(JSON.stringify(s.depth.expected.ratio), s);
    }
    const annotations = [];
    for (const [key, s] of laws) {
      const y = JSON.parse(key);
      const power = s.depth.law === "unscaled" ? "q<sup>(l+1)/2</sup>" : "q<sup>−(l−1)/2</sup>";
      traces.unshift(theory(y, `theory, He init: ${power}`));
      annotations.push({
        text: `theory, He init${s.depth.sameRate ? `: ${power}` : ""}`, x: y.length, y: Math.log10(last(y)), showarrow: false,
        xanchor: "right", yanchor: s.depth.law === "unscaled" ? "top" : "bottom", yshift: s.depth.law === "unscaled" ? -6 : 6,
        font: { size: 11, color: color("muted") },
      });
    }
    return {
      traces,
      layout: {
        height: 420, hovermode: "closest", annotations,
        xaxis: depthAxis(strategies, width < NARROW ? width : width * 2),
        yaxis: { title: "mean in train / mean in eval (log scale)", type: "log", ...ratioTicks(traces) },
        shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, layer: "below", line: { color: color("muted"), width: 1, dash: "dot" } }],
      },
      table: {
        head: ["strategy", "layer", "ratio", "± 95 %", "theory, He init"],
        rows: having.flatMap((s) => s.depth.layers.map((name, l) => [
          s.name, name, short(s.depth.ratio[when].mean[l]), short(s.depth.ratio[when].half[l], 2), short(s.depth.expected.ratio?.[l]),
        ])),
      },
    };
  },

  heatmap({ all, width, controls: { strategy, quantity } }) {
    const s = all[strategy];
    const [mode, stat] = quantity.split(" ");
    const { step, values } = s.activations[mode] ?? { step: [], values: {} };
    const rows = DATA.layers.map((name, n) => [name, values[stat]?.[n]]).filter(([, row]) => row);
    const symmetric = { gain: 1, ratio: 1, shift: 0 }[stat]; // where nothing changes
    const flat = rows.flatMap(([, row]) => row).filter((v) => v !== null);
    const reach = Math.max(...flat.map((v) => Math.abs(v - (symmetric ?? 0))), 1e-3);
    const narrow = width < NARROW;
    return {
      traces: [{
        type: "heatmap", x: step, y: rows.map((_, n) => n), z: rows.map(([, row]) => row),
        customdata: rows.map(([name, row]) => row.map(() => name)), hoverongaps: false,
        colorscale: symmetric === undefined ? "Cividis" : [[0, "#2166ac"], [0.5, color("plot")], [1, "#b35806"]],
        ...(symmetric === undefined ? {} : { zmin: symmetric - reach, zmax: symmetric + reach }),
        colorbar: { thickness: 12, outlinewidth: 0, len: 0.9, tickfont: { size: 11 } },
        hovertemplate: "%{customdata}<br>step %{x}: %{z:.4~g}<extra></extra>",
      }],
      layout: {
        height: Math.min(140 + 26 * Math.max(rows.length, 1), 900), hovermode: "closest",
        xaxis: { title: "optimizer step", showgrid: false },
        yaxis: {
          autorange: "reversed", automargin: true, showgrid: false, ticks: "", title: "",
          ...(rows.length <= 45 ? { tickvals: rows.map((_, n) => n) } : {}),
          ticktext: rows.map(([name]) => fitted(name, narrow)),
          tickfont: { size: 11 },
        },
      },
      table: {
        head: ["layer", `first (step ${step[0] ?? "–"})`, `last (step ${last(step) ?? "–"})`],
        rows: rows.map(([name, row]) => [name, short(row[0]), short(last(row))]),
      },
    };
  },

  rates({ strategies, controls }) {
    const lines = new Map();
    const column = columnOf(controls);
    const of = (s) => s.scores[column.key];
    for (const s of strategies) if (s.p !== null && of(s).mean !== null) lines.set(s.base, [...(lines.get(s.base) ?? []), s]);
    const swept = [...lines].filter(([, points]) => points.length > 1);
    return {
      traces: swept.map(([base, points]) => {
        points.sort((a, b) => a.p - b.p);
        return {
          ...line(points[0], points.map((s) => s.p), points.map((s) => of(s).mean), { mode: "lines+markers" }), name: base,
          error_y: { array: points.map((s) => of(s).half ?? 0), thickness: 1.2, width: 4 },
          hovertemplate: `p = %{x}: %{y:.${column.decimals}f} ${escaped(column.unit)}<extra>${escaped(base)}</extra>`,
        };
      }),
      layout: { height: 380, hovermode: "closest", xaxis: { title: "p, the probability to drop" }, yaxis: { title: column.axis } },
      table: {
        head: ["strategy", "p", column.axis, "± 95 %"],
        rows: swept.flatMap(([base, points]) => points.map((s) => [base, s.p, fixed(of(s).mean, column), fixed(of(s).half, column)])),
      },
    };
  },
};

// An axis for means with intervals. Few seeds can give an interval many times as wide as all differences between means;
// it then runs off the axis rather than flattening everything else. A percentage stays within 0 and 100.
function reachOf(series, percentage) {
  const means = series.flatMap((s) => [s.mean, s.values ?? []].flat(2)).filter((v) => v !== null);
  const span = Math.max(...means) - Math.min(...means);
  const ends = series.flatMap((s) => {
    const halves = [s.half].flat();
    return [s.mean].flat().flatMap((v, n) => (v === null ? [] : [-1, 1].map((sign) => v + sign * Math.min(halves[n] ?? 0, span))));
  });
  const all = [...means, ...ends];
  const low = percentage ? Math.max(Math.min(...all), 0) : Math.min(...all);
  const high = percentage ? Math.min(Math.max(...all), 100) : Math.max(...all);
  const room = 0.04 * (high - low) || 0.05;
  return [low - room, high + room];
}

// Plain numbers on a log axis: 0.5, 1, 2 and not 10^0.
function ratioTicks(traces) {
  const values = traces.flatMap((t) => t.y).filter((v) => v > 0);
  const [low, high] = [Math.min(...values, 0.8) / 1.25, Math.max(...values, 1.25) * 1.25];
  const all = [-4, -3, -2, -1, 0, 1, 2, 3, 4].flatMap((e) => [1, 2, 5].map((m) => m * 10 ** e));
  const ticks = all.filter((v) => v > low && v < high);
  return { tickvals: ticks, ticktext: ticks.map((v) => String(Number(v.toPrecision(1)))), range: [Math.log10(low), Math.log10(high)] };
}
