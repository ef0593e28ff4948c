"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const padding = 0.01 * (data.steps[1] - data.steps[0]) || 0.5;
  const WHOLE = [data.steps[0] - padding, data.steps[1] + padding];
  const state = {
    run: 0,
    shown: data.runs.map((run) => run.shown),
    range: WHOLE,
    theme: root.dataset.theme,
    isThemeChosen: false,
  };
  const drawn = new Set(); // elements with a curve
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const colour = (index) => data.colours[state.theme][index % data.colours[state.theme].length];
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const say = (text) => { document.getElementById("said").textContent = text; };
  // plotly reads some HTML in names; a name is shown letter by letter.
  const letterByLetter = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  // Curves

  function traces(panel) {
    const several = data.runs.length > 1;
    const order = panel.curves.filter((curve) => state.shown[curve.run]);
    order.sort((a, b) => (a.run === state.run) - (b.run === state.run)); // the chosen run lies on top
    return order.map((curve) => {
      const isChosen = curve.run === state.run;
      return {
        type: "scatter", x: curve.x, y: curve.y, customdata: curve.raw,
        mode: curve.dots ? "lines+markers" : "lines",
        line: {
          color: colour(several ? data.runs[curve.run].colour : curve.slot), width: several && isChosen ? 2.4 : 1.5,
          dash: several ? DASHES[curve.slot % DASHES.length] : "solid",
        },
        marker: { size: 5 },
        opacity: several && !isChosen ? 0.75 : 1,
        name: letterByLetter(several ? `${data.runs[curve.run].name} · ${curve.label}` : curve.label),
        hovertemplate: curve.raw ? "%{customdata:.4g}" : "%{y:.4g}",
      };
    });
  }

  function openFindings() {
    return all(`#findings .of-run[data-run="${state.run}"] .mark[aria-expanded="true"]`);
  }

  function marks() {
    return openFindings().map((button) => ({
      type: "rect", name: "finding", xref: "x", yref: "paper", y0: 0, y1: 1, layer: "below",
      x0: Number(button.dataset.first) - data.gap / 2, x1: Number(button.dataset.last) + data.gap / 2,
      fillcolor: colour(Number(button.dataset.colour)), opacity: 0.17,
      line: { color: colour(Number(button.dataset.colour)), width: 2 },
    }));
  }

  function shapes(panel) {
    const lines = panel.lines.map(([height]) => ({
      type: "line", xref: "paper", x0: 0, x1: 1, y0: height, y1: height,
      line: { color: css("--faint"), width: 1, dash: "dash" },
    }));
    return [...lines, ...marks()];
  }

  // From the lowest to the highest value of the curves that are shown, and the lines that matter.
  function heights(panel) {
    if (panel.limits) return [...panel.limits];
    const isLog = panel.scale === "log";
    let [low, high] = [Infinity, -Infinity];
    for (const curve of panel.curves) {
      if (!state.shown[curve.run]) continue;
      for (const y of curve.y) {
        if (y === null) continue;
        low = Math.min(low, y);
        high = Math.max(high, y);
      }
    }
    if (low > high) return isLog ? [-1, 1] : [0, 1];
    if (isLog) low = Math.max(low, Math.min(panel.floor, high));
    for (const [height] of panel.lines) {
      low = Math.min(low, height);
      high = Math.max(high, height);
    }
    if (isLog) [low, high] = [Math.log10(low), Math.log10(high)];
    const around = 0.06 * (high - low) || 0.05 * Math.abs(high) || (isLog ? 0.1 : 1);
    return [low - around, high + around];
  }

  function heightAxis(panel) {
    const isLog = panel.scale === "log";
    const range = heights(panel);
    const axis = {
      type: isLog ? "log" : "linear", range, uirevision: range.join(), gridcolor: css("--line"), zeroline: false,
      automargin: true, exponentformat: "power", nticks: isLog ? (range[1] - range[0] < 2 ? 3 : 4) : 6,
    };
    if (panel.scale === "symlog") {
      const powers = [0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 38];
      const high = powers.map((power) => [power + 1, `10<sup>${power}</sup>`]);
      axis.tickvals = [...high.map(([place]) => -place), 0, ...high.map(([place]) => place)];
      axis.ticktext = [...high.map(([, text]) => `−${text}`), "0", ...high.map(([, text]) => text)];
    }
    return axis;
  }

  function layout(panel) {
    const isLog = panel.scale === "log";
    return {
      autosize: true, margin: { l: 48, r: 12, t: 6, b: 40 }, showlegend: false, uirevision: "kept",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: css("--text"), size: 12, family: "system-ui, sans-serif" },
      hovermode: "x unified", hoverlabel: { bgcolor: css("--card"), namelength: -1 },
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      xaxis: {
        range: [...state.range], gridcolor: css("--line"), zeroline: false, uirevision: state.range.join(),
        title: { text: "optimizer step", standoff: 6, font: { size: 11 } }, exponentformat: "none", nticks: 8,
      },
      yaxis: heightAxis(panel),
      shapes: shapes(panel),
      annotations: panel.lines.filter(([, text]) => text).map(([height, text]) => ({
        text, xref: "paper", x: 1, xanchor: "right", y: isLog ? Math.log10(height) : height, yanchor: "bottom",
        showarrow: false, font: { size: 11, color: css("--faint") }, bgcolor: css("--ground"),
      })),
    };
  }

  const CONFIG = {
    responsive: true, displayModeBar: false, doubleClick: false, plotlyServerURL: "", topojsonURL: "",
  };

  const panelOf = (element) => data.panels[Number(element.dataset.panel)];

  // A panel without a curve that is shown is hidden; plotly cannot measure what is hidden.
  function draw(element) {
    const panel = panelOf(element);
    const figure = element.closest("figure");
    const wasHidden = figure.hidden;
    figure.hidden = !panel.curves.some((curve) => state.shown[curve.run]);
    if (figure.hidden) return;
    Plotly.react(element, traces(panel), layout(panel), CONFIG);
    if (drawn.has(element)) {
      if (wasHidden) Plotly.Plots.resize(element);
      return;
    }
    drawn.add(element);
    element.on("plotly_relayout", () => showSteps(element.layout.xaxis.range));
    element.on("plotly_doubleclick", showAll);
  }

  function drawAll() {
    all(".plot").filter((element) => !element.closest("details:not([open])")).forEach(draw);
  }

  // The steps that all curves show

  function showSteps(range) {
    const wanted = [Number(range[0]), Number(range[1])];
    state.range = wanted;
    const places = Math.max(0, 2 - Math.floor(Math.log10(wanted[1] - wanted[0])));
    const [first, last] = [Math.max(wanted[0], data.steps[0]), Math.min(wanted[1], data.steps[1])];
    document.getElementById("range").textContent = `${first.toFixed(places > 1 ? places : 0)} to ${last.toFixed(places > 1 ? places : 0)}`;
    for (const element of drawn) {
      const now = element.layout.xaxis.range;
      if (now[0] !== wanted[0] || now[1] !== wanted[1]) Plotly.relayout(element, { "xaxis.range": [...wanted] });
    }
  }

  function showAll() {
    showSteps(WHOLE);
    for (const element of drawn) {
      Plotly.relayout(element, { "yaxis.range": heights(panelOf(element)) });
    }
  }

  function zoom(how) {
    const [first, last] = state.range;
    const width = last - first;
    const steps = {
      in: [first + width / 4, last - width / 4], out: [first - width / 2, last + width / 2],
      earlier: [first - width / 2, last - width / 2], later: [first + width / 2, last + width / 2],
    }[how];
    if (how === "all") showAll();
    else showSteps([Math.max(steps[0], WHOLE[0]), Math.min(steps[1], WHOLE[1])]);
  }

  // Findings and runs

  function mark(button) {
    const isOpen = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(isOpen));
    document.getElementById(button.getAttribute("aria-controls")).hidden = !isOpen;
    markCurves();
  }

  function markCurves() {
    for (const element of drawn) {
      Plotly.relayout(element, { shapes: shapes(panelOf(element)) });
    }
  }

  function choose(run) {
    state.run = run;
    state.shown[run] = true;
    all("button.run").forEach((button) => button.setAttribute("aria-pressed", String(Number(button.dataset.run) === run)));
    all(".of-run").forEach((part) => { part.hidden = Number(part.dataset.run) !== run; });
    showBoxes();
    drawAll();
  }

  function showBoxes() {
    all("input.show").forEach((box) => { box.checked = state.shown[Number(box.dataset.run)]; });
  }

  function showGroup(group) {
    state.shown = data.runs.map((run) => group === "" || run.group === group);
    showBoxes();
    if (!state.shown[state.run] && state.shown.includes(true)) choose(state.shown.indexOf(true));
    else drawAll();
  }

  // Copying: a page that was opened as a file may have no clipboard, so the old way is tried too.

  async function copy(button) {
    const code = button.parentElement.querySelector("code");
    const isCopied = (await copyNew(code.textContent)) || copyOld(code.textContent);
    if (!isCopied) getSelection().selectAllChildren(code);
    button.textContent = isCopied ? "Copied" : "Press Ctrl+C";
    say(isCopied ? "The code was copied." : "The code is selected. Press Ctrl+C to copy it.");
    setTimeout(() => { button.textContent = "Copy"; }, 2500);
  }

  async function copyNew(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return false;
    }
  }

  function copyOld(text) {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "hidden";
    document.body.append(area);
    area.select();
    let isCopied = false;
    try {
      isCopied = document.execCommand("copy");
    } catch { /* the browser has no such command */ }
    area.remove();
    return isCopied;
  }

  // Light and dark

  function paint(theme) {
    state.theme = root.dataset.theme = theme;
    document.getElementById("theme").textContent = theme === "dark" ? "Light" : "Dark";
    all("[data-colour]").forEach((part) => part.style.setProperty("--swatch", colour(Number(part.dataset.colour))));
    drawAll();
  }

  // Wiring

  const on = (selector, event, act) => all(selector).forEach((part) => part.addEventListener(event, () => act(part)));
  on("button.mark", "click", mark);
  on("button.copy", "click", copy);
  on("button.zoom", "click", (b) => showSteps([Number(b.dataset.first) - data.gap, Number(b.dataset.last) + data.gap]));
  on("button.run", "click", (button) => choose(Number(button.dataset.run)));
  on("button.choose", "click", (button) => showGroup(button.dataset.group));
  on("input.show", "change", (box) => { state.shown[Number(box.dataset.run)] = box.checked; drawAll(); });
  on("#tools button", "click", (button) => zoom(button.dataset.zoom));
  on("#curves details", "toggle", (details) => { if (details.open) all(".plot", details).forEach(draw); });
  on("#theme", "click", () => { state.isThemeChosen = true; paint(state.theme === "dark" ? "light" : "dark"); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (query) => {
    if (!state.isThemeChosen) paint(query.matches ? "dark" : "light");
  });
  paint(state.theme);
  showSteps(WHOLE);
})();
