// Comparison of networks: scalars against a label, averaged over samples, and the curves of each network.
(function () {
  "use strict";

  const { data, rows, shown, chart, select } = window.report;
  const { style: styleOf, scale, text, theme } = window.rankscope;
  const dimensions = data.dimensions;
  const MAX_STYLES = 7;
  const MARK_HEIGHT = 19;
  const MOST_FACETS = 8; // values of a label that get a chart each
  const section = document.getElementById("comparison");
  if (!section) { window.report.startComparison = () => {}; return; }

  const dimension = (name) => dimensions.find((one) => one.name === name);
  const others = (name) => dimensions.filter((one) => one.name !== name);
  const hasConvergence = data.networks.some((network) => (network.scalars.convergence_epoch ?? null) !== null);
  const state = { main: data.main, color: null, facet: null, curveColor: data.main, panelPlace: {}, curvePlace: {} };

  data.networks.forEach((network, index) => {
    network.index = index;
    network.place = Object.fromEntries(dimensions.map((one) => {
      const label = network.labels[one.name];
      return [one.name, one.values.indexOf(one.numeric ? label : pythonText(label))];
    }));
  });
  data.groups.forEach((group) => {
    group.place = Object.fromEntries(dimensions.map((one, axis) => [one.name, group.place[axis]]));
  });

  // Labels that are not numbers are listed in Python's notation.
  function pythonText(label) {
    return label === true ? "True" : label === false ? "False" : String(label);
  }

  function at(one, index) {
    return one.numeric ? one.values[index] : index;
  }

  function xAxis(one) {
    const axis = { title: one.title, log: one.log };
    const few = one.values.length <= 12;
    const counted = one.numeric && one.values.every(Number.isInteger);
    if (!one.numeric || ((one.log || counted) && few)) {
      Object.assign(axis, { tickvals: one.values.map((_, index) => at(one, index)), ticktext: one.texts.map(text) });
    }
    if (!one.numeric) { axis.range = [-0.5, one.values.length - 0.5]; }
    return axis;
  }

  function valueName(one, index) {
    return one.short + one.texts[index];
  }

  // Few values get distinct styles; many numbers get an ordered color scale.
  function styleAlong(one, index) {
    if (!one.numeric || one.values.length <= MAX_STYLES) { return styleOf(index); }
    return { color: scale(index / (one.values.length - 1)), symbol: styleOf(index).symbol, dash: "solid" };
  }

  function within(place, fixed) {
    return Object.entries(fixed).every(([name, index]) => place[name] === index);
  }

  function words(fixed) {
    return Object.entries(fixed).map(([name, index]) => valueName(dimension(name), index)).join(", ");
  }

  // ---- scalars against a label ----

  function panelData(panel, facet) {
    const main = dimension(state.main);
    const color = state.color && dimension(state.color);
    const traces = [];
    const lost = {};
    const annotations = [];
    const ends = [];
    (color ? color.values : [null]).forEach((_, index) => {
      const fixed = { ...state.panelPlace, ...facet, ...(color ? { [color.name]: index } : {}) };
      const name = color ? valueName(color, index) : "mean";
      const style = color ? styleAlong(color, index) : styleOf(0);
      const single = data.networks.filter((network) =>
        within(network.place, fixed) && network.status !== "diverged" && (network.scalars[panel.name] ?? null) !== null);
      if (single.length) {
        traces.push({
          x: single.map((network) => at(main, network.place[main.name])), y: single.map((network) => network.scalars[panel.name]),
          mode: "markers", name: text(name) + ", networks", showlegend: false,
          customdata: single.map((network) => network.index),
          text: single.map((network) => text(network.name) + (didNotConverge(network) ? " (did not converge)" : "")),
          hovertemplate: "%{text}<br>%{y:.4~g}<extra></extra>",
          marker: {
            color: style.color, ...(data.groups.length ? { size: 6, opacity: 0.45 } : { size: 9 }),
            symbol: single.map((network) => (didNotConverge(network) ? "circle-open" : "circle")),
          },
        });
      }
      const groups = data.groups.filter((group) => within(group.place, fixed))
        .sort((a, b) => a.place[main.name] - b.place[main.name]);
      const mean = groups.filter((group) => group.scalars[panel.name].mean !== null);
      groups.filter((group) => group.scalars[panel.name].count === 0 && hasConvergence).forEach((group) => {
        const x = at(main, group.place[main.name]);
        lost[x] = (lost[x] || 0) + 1;
        annotations.push({
          x: main.log ? Math.log10(x) : x, y: 1, yref: "paper", yanchor: "bottom", showarrow: false,
          yshift: 2 + MARK_HEIGHT * (lost[x] - 1), text: "0/" + group.total, font: { size: 11, color: theme().ink },
          bordercolor: style.color, borderwidth: 1.5, borderpad: 1,
        });
      });
      if (mean.length) {
        const scalars = mean.map((group) => group.scalars[panel.name]);
        traces.push({
          x: mean.map((group) => at(main, group.place[main.name])), y: scalars.map((one) => one.mean),
          error_y: { array: scalars.map((one) => one.std || 0), thickness: 1.2, width: 3, color: style.color },
          mode: main.numeric ? "lines+markers" : "markers", name: text(name),
          line: { color: style.color, width: 2, dash: "solid" },
          text: mean.map((group, i) => "mean over " + scalars[i].count + " of " + group.total
            + (scalars[i].std === null ? "" : ", deviation " + shown(scalars[i].std))),
          hovertemplate: text(name) + "<br>%{y:.4~g}, %{text}<extra></extra>",
          marker: {
            color: style.color, size: 9, line: { width: 1.5, color: style.color },
            symbol: mean.map((group, i) => style.symbol + (scalars[i].count < group.total ? "-open" : "")),
          },
        });
        const [first, last] = [mean[0], mean[mean.length - 1]];
        ends.push(name + ": " + [first, last].map((group) =>
          shown(group.scalars[panel.name].mean) + " at " + valueName(main, group.place[main.name])).join(", "));
      }
    });
    const above = Math.max(0, ...Object.values(lost));
    const several = traces.filter((trace) => trace.showlegend !== false).length > 1;
    const y = { title: panel.title, log: panel.log, rangemode: panel.log || panel.name === "outlier" ? "normal" : "tozero" };
    const shapes = panel.name === "shuffled_loss"
      ? [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { color: theme().quiet, width: 1, dash: "dot" } }] : [];
    return {
      traces,
      axes: {
        x: xAxis(main), y, annotations, shapes, showlegend: several,
        margin: { l: 56, r: 14, t: 8 + MARK_HEIGHT * above, b: 48 },
        legend: { orientation: "h", x: 0, y: 1.02 + 0.08 * above, yanchor: "bottom", font: { size: 12 } },
      },
      summary: "Means over networks, from left to right. " + (ends.join("; ") || "No network has a value."),
    };
  }

  // One range of values for the charts of all values of a label.
  function sharedRange(panel, places) {
    const values = places.flatMap((place) => panelData(panel, place).traces).flatMap((trace) =>
      trace.y.flatMap((y, i) => (trace.error_y ? [y - trace.error_y.array[i], y + trace.error_y.array[i]] : [y])))
      .filter((y) => Number.isFinite(y) && (!panel.log || y > 0)).map((y) => (panel.log ? Math.log10(y) : y));
    if (!values.length) { return undefined; }
    const zero = panel.log || panel.name === "outlier" ? [] : [0];
    const [low, high] = [Math.min(...values, ...zero), Math.max(...values, ...zero)];
    const margin = 0.06 * (high - low) || 0.5;
    return [low === 0 ? 0 : low - margin, high === 0 ? 0 : high + margin];
  }

  function didNotConverge(network) {
    return hasConvergence && (network.scalars.convergence_epoch ?? null) === null;
  }

  // ---- curves ----

  function chosenNetworks() {
    return data.networks.filter((network) => within(network.place, state.curvePlace));
  }

  // curve(network) -> {x, y, text} or null
  function curveData(curve, axes, summary) {
    const main = dimension(state.curveColor);
    const named = new Set();
    const traces = [];
    chosenNetworks().forEach((network) => {
      const drawn = curve(network);
      if (!drawn) { return; }
      const index = network.place[main.name];
      const style = styleAlong(main, index);
      traces.push({
        ...drawn, name: text(valueName(main, index)), legendgroup: String(index), legendrank: 1000 + index,
        showlegend: !named.has(index), mode: drawn.mode || "lines",
        line: { color: style.color, width: 1.5 }, marker: { color: style.color, symbol: style.symbol, size: 5 },
        customdata: drawn.x.map(() => network.index),
        hovertemplate: text(network.name) + "<br>%{x}: %{y:.3~g}<extra></extra>",
      });
      named.add(index);
    });
    return {
      traces, axes: { showlegend: named.size > 1, ...axes },
      summary: summary + " " + traces.length + " networks" + (words(state.curvePlace) ? " with " + words(state.curvePlace) : "") + ".",
    };
  }

  function criterion(y) {
    const { quiet } = theme();
    return {
      shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: quiet, width: 1, dash: "dash" } }],
    };
  }

  function lossData() {
    return curveData((network) => {
      if (!network.loss) { return null; }
      const [epochs, losses] = rows(network.loss);
      const start = network.scalars.initial_loss ?? losses[0];
      return { x: epochs, y: losses.map((loss) => (loss === null || loss <= 0 ? null : loss / start)) };
    }, { x: { title: "epoch" }, y: { title: "loss / initial loss", log: true }, ...(hasConvergence ? criterion(0.05) : {}) },
    "Training loss over epochs, relative to epoch 0.");
  }

  function truncationOf(network, quantity) {
    if (!network.truncation) { return null; }
    const index = network.truncation.names.findIndex((one) => one.of === quantity && one.truncated !== "trained");
    if (index < 0) { return null; }
    const all = rows(network.truncation.values);
    return { ranks: all[0], values: all[index + 1] };
  }

  function truncatesAccuracy() {
    return data.networks.some((network) => truncationOf(network, "accuracy"));
  }

  function truncationData() {
    const accuracy = truncatesAccuracy();
    return curveData((network) => {
      const curve = truncationOf(network, accuracy ? "accuracy" : "loss");
      if (!curve) { return null; }
      const y = accuracy ? curve.values : curve.values.map((value) => (value > 0 ? value / curve.values[0] : null));
      return { x: curve.ranks, y, mode: "lines+markers" };
    }, accuracy
      ? { x: { title: "rank of the truncated ΔW" }, y: { title: "accuracy" } }
      : { x: { title: "rank of the truncated ΔW" }, y: { title: "loss / loss at rank 0", log: true }, ...criterion(0.05) },
    "Score of the networks with the change truncated to each rank.");
  }

  // ---- controls ----

  const panelsForm = document.getElementById("comparison-controls");
  const curvesForm = document.getElementById("curves-controls");
  let charts = [];
  let panelCharts = [];
  let onClick = () => {};

  // The charts of the scalars, again whenever what has a chart of its own changes.
  function build() {
    panelCharts.forEach((one) => one.remove());
    const facet = state.facet && dimension(state.facet);
    const places = facet ? facet.values.map((_, index) => ({ [facet.name]: index })) : [{}];
    const panels = document.getElementById("panels");
    panelCharts = data.panels.flatMap((panel) => places.map((place) =>
      chart(panels, panel.title + (facet ? ", " + words(place) : ""), () => {
        const drawn = panelData(panel, place);
        if (facet) { drawn.axes.y.range = sharedRange(panel, places); }
        return drawn;
      }, { onClick })));
    charts.forEach((one) => one.redraw());
    note();
  }

  function redraw() { [...panelCharts, ...charts].forEach((one) => one.redraw()); note(); }

  function fixedSelects(form, prefix, names, place) {
    names.forEach((one) => {
      if (!(one.name in place)) { place[one.name] = 0; }
      select(form, prefix + one.name, one.title, one.texts.map((value, index) => [String(index), value]), String(place[one.name]),
        (value) => { place[one.name] = Number(value); redraw(); });
    });
  }

  function controls() {
    panelsForm.replaceChildren();
    curvesForm.replaceChildren();
    const free = others(state.main);
    if (!free.some((one) => one.name === state.color)) { state.color = free.length ? free[0].name : null; }
    state.panelPlace = {};
    state.curvePlace = {};
    if (dimensions.length > 1) {
      select(panelsForm, "main-dimension", "Horizontal axis", dimensions.map((one) => [one.name, one.title]), state.main,
        (value) => { state.main = value; controls(); build(); document.getElementById("main-dimension").focus(); });
    }
    if (free.length && !free.some((one) => one.name === state.facet && one.name !== state.color)) { state.facet = null; }
    if (free.length > 1) {
      select(panelsForm, "color-dimension", "Color", free.map((one) => [one.name, one.title]), state.color,
        (value) => { state.color = value; controls(); build(); document.getElementById("color-dimension").focus(); });
    }
    const facets = free.filter((one) => one.name !== state.color && one.values.length <= MOST_FACETS);
    if (facets.length) {
      select(panelsForm, "facet-dimension", "A chart for each", [["", "(one value, chosen)"], ...facets.map((one) => [one.name, one.title])],
        state.facet || "", (value) => { state.facet = value || null; controls(); build(); document.getElementById("facet-dimension").focus(); });
    }
    fixedSelects(panelsForm, "panel-", free.filter((one) => one.name !== state.color && one.name !== state.facet), state.panelPlace);
    if (!dimension(state.curveColor)) { state.curveColor = state.main; }
    if (dimensions.length > 1) {
      select(curvesForm, "curve-color-dimension", "Color", dimensions.map((one) => [one.name, one.title]), state.curveColor,
        (value) => { state.curveColor = value; controls(); redraw(); document.getElementById("curve-color-dimension").focus(); });
    }
    fixedSelects(curvesForm, "curve-", others(state.curveColor), state.curvePlace);
    panelsForm.hidden = !panelsForm.children.length;
    curvesForm.hidden = !curvesForm.children.length;
  }

  function note() {
    const parts = !data.groups.length ? ["Each marker is one network."] : ["Large markers: means and standard deviations over " + (hasConvergence ? "the networks that converged" : "the networks")
      + "; small markers: single networks."];
    if (hasConvergence && !data.groups.length) { parts.push("Open markers did not converge."); }
    if (hasConvergence && data.groups.length) { parts.push("Open large markers: means over only some of the networks. Open small markers: networks that did not converge. 0/n above: none of n networks converged or has a value."); }
    if (data.networks.some((network) => network.status === "diverged")) { parts.push("Networks that diverged are not shown."); }
    document.getElementById("panels-note").textContent = parts.join(" ");
  }

  window.report.startComparison = (open) => {
    onClick = (point) => { if (point.customdata !== undefined) { open(point.customdata); } };
    controls();
    build();
    const curves = document.getElementById("curves");
    if (data.networks.some((network) => network.loss)) { charts.push(chart(curves, "Loss during learning" + (hasConvergence ? " (dashed: 5 %, converged)" : ""), lossData, { onClick })); }
    if (data.networks.some((network) => network.truncation)) { charts.push(chart(curves, "Truncating the change" + (truncatesAccuracy() ? "" : " (dashed: 5 %, functional rank)"), truncationData, { onClick })); }
    if (!curves.children.length) { document.getElementById("curves-title").hidden = true; curvesForm.hidden = true; curves.hidden = true; }
    if (!data.panels.length) { document.getElementById("panels-note").textContent = "This run has no scalars to compare."; }
    [panelsForm, curvesForm].forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));
  };
})();
