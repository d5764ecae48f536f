// What the page does when it is used: the slider for p, the strategy switches, the controls of the pictures.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const hidden = new Set(DATA.strategies.map((_, n) => n).filter((n) => n >= DATA.shownAtFirst));
const byId = (id) => document.getElementById(id);

const CONFIG = { displayModeBar: false };

function controlsOf(figure) {
  return Object.fromEntries([...figure.querySelectorAll("select")].map((select) => [select.name, select.value]));
}

function draw(figure) {
  const plot = figure.querySelector(".plot");
  const strategies = DATA.strategies.filter((_, n) => !hidden.has(n));
  const width = plot.clientWidth;
  const controls = controlsOf(figure);
  const { traces, layout, table } = PICTURES[figure.id]({ strategies, all: DATA.strategies, width, controls });
  const heading = figure.querySelector("h3");
  if (controls.column) heading.textContent = heading.dataset.title.replace("{score}", () => columnOf(controls).title);
  const drawn = { width, ...styled(layout) };
  figure.querySelector(".empty").hidden = traces.length > 0;
  Plotly.react(plot, traces, drawn, CONFIG);
  const details = figure.querySelector("details");
  details.hidden = !traces.length;
  details.ontoggle = () => details.open && figure.querySelector(".numbers").replaceChildren(tableOf(table));
  details.ontoggle();
}

// Only pictures on the screen or near it are drawn: a page of a hundred strategies answers at once.
const near = new Set();
const stale = new Set(document.querySelectorAll("figure"));
const drawStale = (figures) => figures.forEach((figure) => stale.delete(figure) && draw(figure));

function drawAll() {
  document.querySelectorAll("figure").forEach((figure) => stale.add(figure));
  drawStale(near);
}

const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) isIntersecting ? near.add(target) : near.delete(target);
  drawStale(near);
}, { rootMargin: "400px" });

function styled(layout) {
  const axis = { gridcolor: color("grid"), linecolor: color("grid"), zeroline: false, automargin: true };
  const font = { family: getComputedStyle(document.body).fontFamily, color: color("text"), size: 13 };
  const axes = Object.entries(layout).filter(([key]) => /^[xy]axis/.test(key));
  const merged = axes.map(([key, own]) => {
    const title = own.title && { text: own.title, font: { size: 12.5, color: color("muted") }, standoff: 12 };
    return [key, { ...axis, ...own, title }];
  });
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font, showlegend: false, dragmode: "zoom",
    margin: { l: 56, r: 14, t: 30, b: 52 }, hoverlabel: { font: { family: font.family } }, ...layout, ...Object.fromEntries(merged),
  };
}

function tableOf({ head, rows }) {
  const table = document.createElement("table");
  const header = table.createTHead().insertRow();
  for (const text of head) header.append(Object.assign(document.createElement("th"), { textContent: text, scope: "col" }));
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((text, n) => {
      if (n) line.insertCell().textContent = text;
      else line.append(Object.assign(document.createElement("th"), { textContent: text, scope: "row" }));
    });
  }
  return table;
}

function save(figure) {
  const plot = figure.querySelector(".plot");
  const layout = { ...plot.layout, showlegend: true, legend: { orientation: "h", y: -0.25 }, paper_bgcolor: color("page") };
  Plotly.downloadImage({ data: plot.data, layout }, {
    format: "svg", filename: `dropout-lab-${figure.id}`, width: plot.clientWidth, height: plot.clientHeight + 60,
  });
}

function explain() {
  const p = Number(byId("p").value);
  const q = 1 - p;
  const times = Number((1 / q).toFixed(2));
  byId("p-value").textContent = p.toFixed(2);
  byId("dropped").textContent = q.toFixed(2);
  byId("bar-dropped").style.setProperty("--share", q);
  document.querySelectorAll("[data-q]").forEach((cell) => (cell.textContent = q.toFixed(2)));
  byId("times").textContent = times;
  byId("p-sentence").textContent =
    `${Math.round(100 * p)} % of the units become 0, so a mean of 1.00 falls to ${q.toFixed(2)}. ` +
    `The survivors are multiplied by 1/(1 − p) = ${times}, and the mean is 1.00 again.`;
}

function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
}

function fillControls() {
  const has = (mode, stat) => DATA.strategies.some((s) => s.activations[mode]?.values[stat]);
  const inputs = new Set(DATA.dropouts.map((name) => `${name}_in`));
  const role = (name) => (DATA.dropouts.includes(name) ? " (dropout, output)" : inputs.has(name) ? " (dropout, input)" : "");
  const options = {
    column: DATA.columns.map(({ key, title }) => [key, title]),
    metric: Object.entries(DATA.curveTitles).filter(([key]) => DATA.strategies.some((s) => s.curves[key])),
    layer: DATA.layers.map((name, n) => [n, name.replace(/_in$/, inputs.has(name) ? "" : "$&") + role(name)]),
    stat: [["mean", "mean"], ["std", "standard deviation"], ["zeros", "fraction of zeros"], ["p", "probability to drop"]]
      .filter(([stat]) => has("train", stat)),
    when: [["last", "at the end of training"], ["first", "at the first probe"]],
    strategy: DATA.strategies.map((s, n) => [n, s.name]),
    quantity: [
      ["train mean", "mean in training"], ["eval mean", "mean in eval"], ["probe ratio", "ratio of train to eval, same inputs"],
      ["probe shift", "shift from eval to train, in eval standard deviations"], ["train gain", "gain in training"],
      ["train zeros", "fraction of zeros in training"], ["eval zeros", "fraction of zeros in eval"],
    ].filter(([key]) => has(...key.split(" "))),
  };
  for (const select of document.querySelectorAll("figure select")) fill(select, options[select.name]);
  const steps = DATA.strategies.map((s) => s.depth.ratio).filter((r) => r.first);
  const when = document.querySelector("select[name=when]");
  if (when && steps.length) {
    when.options[0].text += ` (step ${steps[0].last.step})`;
    when.options[1].text += ` (step ${steps[0].first.step})`;
  }
  const layer = document.querySelector("select[name=layer]");
  const lastDropout = DATA.layers.indexOf(last(DATA.dropouts));
  if (layer && lastDropout >= 0) layer.value = lastDropout;
}

function show(chip, on) {
  const n = Number(chip.dataset.strategy);
  if (on) hidden.delete(n);
  else hidden.add(n);
  chip.setAttribute("aria-pressed", on);
}

function listen() {
  const chips = [...document.querySelectorAll(".chip")];
  for (const chip of chips) chip.addEventListener("click", () => { show(chip, chip.ariaPressed !== "true"); drawAll(); });
  for (const button of document.querySelectorAll("[data-all]")) {
    button.addEventListener("click", () => { chips.forEach((chip) => show(chip, button.dataset.all === "true")); drawAll(); });
  }
  for (const figure of document.querySelectorAll("figure")) {
    observer.observe(figure);
    figure.querySelectorAll("select").forEach((select) => select.addEventListener("change", () => draw(figure)));
    figure.querySelector(".save").addEventListener("click", () => save(figure));
  }
  addEventListener("beforeprint", () => drawStale([...stale]));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  let later;
  addEventListener("resize", () => { // a turned phone: panels change places
    clearTimeout(later);
    later = setTimeout(drawAll, 100);
  });
}

explain();
byId("p").addEventListener("input", explain);
if (DATA.strategies.length) {
  fillControls();
  listen(); // and the observer draws
}
