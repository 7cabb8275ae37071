// One network: scalars, singular values and eigenvalues during learning, example trial, spectra.
(function () {
  "use strict";

  const { data, rows, numbers, column, shown, element, chart } = window.report;
  const { style: styleOf, text, theme, reducedMotion } = window.rankscope;
  const byId = (id) => document.getElementById(id);
  const FOLLOWED = 6;
  const STEP = 120;
  const SLOW_STEP = 700;

  const choice = byId("network-choice");
  const slider = byId("history-epoch");
  const play = byId("history-play");
  let network = null;
  let record = 0;
  let timer = null;
  let historyCharts = [];
  let restCharts = [];
  let weight = 0;

  // ---- during learning ----

  function history() {
    return network.detail && network.detail.history;
  }

  function historyValues() {
    const past = history();
    return { epochs: numbers(past.epochs), singular: past.singular && rows(past.singular) };
  }

  function highest(matrix) {
    return matrix.reduce((most, row) => row.reduce((m, value) => (value > m ? value : m), most), 0);
  }

  function nowData() {
    const { epochs, singular } = historyValues();
    const index = singular[0].map((_, i) => i + 1);
    const last = singular[singular.length - 1];
    const top = highest(singular) * 1.05 || 1;
    return {
      traces: [
        { x: index, y: last, mode: "markers", name: "at the last record", marker: { symbol: "circle-open", size: 10, color: theme().quiet } },
        { x: index, y: singular[record], mode: "markers", name: "at epoch " + epochs[record], marker: { symbol: "circle", size: 8, color: styleOf(0).color } },
      ],
      axes: {
        x: { title: "index of the singular value", range: [0.3, index.length + 0.7], dtick: index.length > 10 ? 5 : 1 },
        y: { title: "singular value of ΔW", range: [0, top] }, showlegend: true,
      },
      summary: "At epoch " + epochs[record] + " the three largest singular values of the change are "
        + singular[record].slice(0, 3).map((value) => shown(value)).join(", ") + "; at the last record "
        + last.slice(0, 3).map((value) => shown(value)).join(", ") + ".",
    };
  }

  function pastData() {
    const { epochs, singular } = historyValues();
    const { ink } = theme();
    const followed = Math.min(FOLLOWED, singular[0].length);
    const traces = Array.from({ length: followed }, (_, i) => {
      const style = styleOf(i);
      return {
        x: epochs, y: column(singular, i), mode: "lines", name: String(i + 1), line: { color: style.color, width: 2, dash: style.dash },
        hovertemplate: "singular value " + (i + 1) + "<br>epoch %{x}: %{y:.3~g}<extra></extra>",
      };
    });
    const top = highest(singular) * 1.05 || 1;
    return {
      traces,
      axes: {
        x: { title: "epoch" }, y: { title: "singular value of ΔW", range: [0, top] }, showlegend: true,
        legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", title: { text: "index ", font: { size: 12 } }, font: { size: 12 } },
        shapes: [{ type: "line", x0: epochs[record], x1: epochs[record], yref: "paper", y0: 0, y1: 1, line: { color: ink, width: 1.5 } }],
      },
      summary: "The " + followed + " largest singular values of the change over the epochs; the largest ends at "
        + shown(singular[singular.length - 1][0]) + ".",
    };
  }

  function circle(radius) {
    const { quiet } = theme();
    return { type: "circle", x0: -radius, x1: radius, y0: -radius, y1: radius, line: { color: quiet, width: 1, dash: "dot" } };
  }

  function gain() {
    const own = network.labels.gain ?? (network.job && network.job.gain);
    return typeof own === "number" ? own : null;
  }

  // Equal units on both axes; the range contains everything drawn.
  function plane(reach) {
    return {
      x: { title: "real part", range: [-reach, reach], constrain: "domain" },
      y: { title: "imaginary part", range: [-reach, reach], scaleanchor: "x", constrain: "domain" },
    };
  }

  function eigenNowData() {
    const past = history();
    const { epochs } = historyValues();
    const [real, imag] = [rows(past.eigen, 0), rows(past.eigen, 1)];
    const reach = 1.1 * Math.max(1, gain() || 0, ...[...real, ...imag].flat().map((value) => Math.abs(value || 0)));
    const { quiet } = theme();
    const trail = [[], []];
    for (let i = 0; i <= record; i += 1) { trail[0].push(...real[i]); trail[1].push(...imag[i]); }
    const g = gain();
    return {
      traces: [
        { x: trail[0], y: trail[1], mode: "markers", name: "at earlier records", marker: { size: 3, color: quiet }, hoverinfo: "skip" },
        { x: real[record], y: imag[record], mode: "markers", name: "at epoch " + epochs[record], marker: { size: 9, color: styleOf(1).color, symbol: styleOf(1).symbol } },
      ],
      axes: { ...plane(reach), showlegend: true, shapes: g ? [circle(g)] : [] },
      summary: "At epoch " + epochs[record] + " the leading eigenvalue of W is "
        + shown(real[record][0]) + (imag[record][0] ? " plus or minus " + shown(Math.abs(imag[record][0])) + " i" : "") + ".",
    };
  }

  function show(next) {
    const { epochs } = historyValues();
    record = next;
    slider.value = String(record);
    const words = "epoch " + epochs[record] + " (record " + (record + 1) + " of " + epochs.length + ")";
    slider.setAttribute("aria-valuetext", words);
    byId("history-position").textContent = words;
    historyCharts.forEach((one) => one.redraw());
  }

  function stop() {
    if (timer !== null) { clearInterval(timer); timer = null; }
    play.textContent = "Play";
  }

  function start() {
    const last = Number(slider.max);
    if (record >= last) { show(0); }
    play.textContent = "Stop";
    timer = setInterval(() => {
      show(Math.min(record + 1, last));
      if (record >= last) { stop(); }
    }, reducedMotion() ? SLOW_STEP : STEP);
  }

  // ---- after learning ----

  function spectra() {
    return network.detail && network.detail.spectra;
  }

  const MATRIX_NAMES = { initial: "W₀, before", change: "ΔW, the change", trained: "W, after" };

  function singularData() {
    const { matrices, singular } = spectra();
    const values = rows(singular[Math.min(weight, singular.length - 1)].values);
    const traces = matrices.map((matrix, i) => ({
      x: values[i].map((_, k) => k + 1), y: values[i], mode: "lines+markers", name: text(MATRIX_NAMES[matrix] || matrix),
      line: { color: styleOf(i).color, width: 1.2 }, marker: { color: styleOf(i).color, symbol: styleOf(i).symbol, size: 4 },
      hovertemplate: "%{x}: %{y:.4~g}<extra></extra>",
    }));
    return {
      traces,
      axes: { x: { title: "index of the singular value", log: true, dtick: "D2" }, y: { title: "singular value", rangemode: "tozero" }, showlegend: true },
      summary: "Singular values, largest first. " + matrices.map((matrix, i) =>
        (MATRIX_NAMES[matrix] || matrix) + ": the largest " + shown(values[i][0])).join("; ") + ".",
    };
  }

  function eigenData() {
    const { matrices, eigen } = spectra();
    const [real, imag] = [rows(eigen, 0), rows(eigen, 1)];
    const { quiet } = theme();
    const shownMatrices = matrices.map((matrix, i) => [matrix, i]).filter(([matrix]) => matrix !== "change");
    const traces = shownMatrices.map(([matrix, i]) => ({
      x: real[i], y: imag[i], mode: "markers", name: text(MATRIX_NAMES[matrix] || matrix),
      marker: matrix === "initial" ? { size: 5, symbol: "circle-open", color: quiet } : { size: 5, color: styleOf(1).color, symbol: styleOf(1).symbol },
      hovertemplate: "%{x:.3~g} + %{y:.3~g} i<extra></extra>",
    }));
    const g = gain();
    const reach = 1.08 * Math.max(g || 0, 0.05, ...shownMatrices.flatMap(([, i]) => [...real[i], ...imag[i]].map((value) => Math.abs(value || 0))));
    return {
      traces, axes: { ...plane(reach), showlegend: true, shapes: g ? [circle(g)] : [] },
      summary: "Eigenvalues in the complex plane." + (g ? " The dotted circle has the radius g = " + shown(g) + "." : "")
        + " The largest modulus after learning is " + shown(Math.hypot(real[real.length - 1][0], imag[imag.length - 1][0])) + ".",
    };
  }

  function trialChannels(name) {
    return rows(network.detail.trial[name]);
  }

  function inputData() {
    const time = numbers(network.detail.trial.time);
    const channels = trialChannels("input");
    return {
      traces: channels.map((values, i) => ({
        x: time, y: values, mode: "lines", name: "channel " + (i + 1), line: { color: styleOf(i).color, width: 1.6, dash: styleOf(i).dash, shape: "hv" },
      })),
      axes: { x: { title: "time (membrane time constants)" }, y: { title: "input" }, showlegend: channels.length > 1 },
      summary: channels.length + " input channels over " + time.length + " time steps.",
    };
  }

  function outputData() {
    const time = numbers(network.detail.trial.time);
    const [outputs, targets] = [trialChannels("output"), trialChannels("target")];
    const { ink } = theme();
    const traces = outputs.map((values, i) => ({
      x: time, y: values, mode: "lines", name: outputs.length > 1 ? "output " + (i + 1) : "output", line: { color: styleOf(i).color, width: 2.2 },
    }));
    const error = [0, 0];
    targets.forEach((values, i) => {
      values.forEach((value, k) => { if (value !== null) { error[0] += (value - outputs[i][k]) ** 2; error[1] += 1; } });
      traces.push({
        x: time, y: values, mode: "lines", name: targets.length > 1 ? "target " + (i + 1) : "target", line: { color: ink, width: 2, dash: i ? "dash" : "dot" },
      });
    });
    return {
      traces,
      axes: { x: { title: "time (membrane time constants)" }, y: { title: "output" }, showlegend: true },
      summary: outputs.length + " output channels and their targets"
        + (error[1] ? "; the root mean square difference is " + shown(Math.sqrt(error[0] / error[1])) : "") + ".",
    };
  }

  function learningData() {
    const [epochs, losses, gradients] = rows(network.loss);
    const positive = (values) => values.map((value) => (value > 0 ? value : null));
    const traces = [{ x: epochs, y: positive(losses), mode: "lines", name: "loss", line: { color: styleOf(0).color, width: 2 } }];
    if (gradients) { traces.push({ x: epochs, y: positive(gradients), mode: "lines", name: "gradient norm", line: { color: styleOf(1).color, width: 1.3, dash: "dash" } }); }
    return {
      traces, axes: { x: { title: "epoch" }, y: { title: gradients ? "loss, gradient norm" : "loss", log: true }, showlegend: traces.length > 1 },
      summary: "The loss goes from " + shown(losses[0]) + " to " + shown(losses[losses.length - 1]) + " in " + (epochs[epochs.length - 1] + 1) + " epochs.",
    };
  }

  function truncationData() {
    const { names } = network.truncation;
    const [ranks, ...curves] = rows(network.truncation.values);
    const accuracy = names.some((one) => one.of === "accuracy");
    const kept = names.map((one, i) => ({ ...one, values: curves[i] })).filter((one) => (one.of === "accuracy") === accuracy);
    const traces = kept.map((one, i) => ({
      x: ranks, y: accuracy ? one.values : one.values.map((value) => (value > 0 ? value / one.values[0] : null)), mode: "lines+markers",
      name: text(one.truncated ? MATRIX_NAMES[one.truncated] || one.truncated : "ΔW truncated"),
      line: { color: styleOf(i).color, width: 1.5 }, marker: { color: styleOf(i).color, symbol: styleOf(i).symbol, size: 5 },
    }));
    const rank = network.scalars.functional_rank ?? null;
    const where = rank === null ? -1 : ranks.indexOf(rank);
    if (where >= 0) {
      traces.push({
        x: [rank], y: [traces[0].y[where]], mode: "markers", name: "functional rank", marker: { symbol: "circle-open", size: 15, color: theme().ink, line: { width: 2 } },
      });
    }
    const y = accuracy ? { title: "accuracy" } : { title: "loss / loss at rank 0", log: true };
    return {
      traces, axes: { x: { title: accuracy ? "rank after truncation" : "rank of the truncated ΔW" }, y, showlegend: true },
      summary: rank === null ? "No tested rank is sufficient." : "Rank " + rank + " is sufficient.",
    };
  }

  // ---- selection ----

  function facts() {
    const list = byId("network-facts");
    list.replaceChildren();
    const add = (title, value) => list.append(element("dt", { text: title }), element("dd", { text: value }));
    add("status", network.status);
    data.scalars.forEach((one) => add(one.title, shown(network.scalars[one.name], 4)));
    if (network.seed) { add("seed", network.seed); }
    if (network.finished) { add("finished", network.finished); }
    if (network.seconds !== undefined) { add("training time (seconds)", shown(network.seconds)); }
    if (network.digest) { add("job", network.digest); }
    byId("network-job").hidden = !network.job;
    byId("network-job").querySelector("pre").textContent = network.job ? JSON.stringify(network.job, null, 1) : "";
  }

  function notes() {
    const detail = network.detail;
    byId("network-note").textContent = detail ? "" : "To limit the size of this page, spectra and trial of this network are only in its result file.";
    const past = history();
    byId("history").hidden = !past;
    if (!past) { return; }
    const count = numbers(past.epochs).length;
    byId("history-note").textContent = "Recorded: " + [past.singular && "the singular values of ΔW", past.eigen && "the leading eigenvalues of W"]
      .filter(Boolean).join(" and ") + " at " + count + " epochs."
      + (past.eigen ? "" : spectra() && spectra().eigen ? " Eigenvalues were recorded before and after learning only, see below." : " Eigenvalues were not recorded.");
    slider.max = String(count - 1);
  }

  function build() {
    const historyParent = byId("history-charts");
    const restParent = byId("network-charts");
    [...historyCharts, ...restCharts].forEach((one) => one.remove());
    historyCharts = [];
    restCharts = [];
    const past = history() || {};
    if (past.singular) {
      historyCharts.push(chart(historyParent, "Singular values of the change at this epoch", nowData));
      historyCharts.push(chart(historyParent, "Singular values of the change over the epochs", pastData, {
        onClick: (point) => { stop(); show(numbers(history().epochs).indexOf(point.x)); },
      }));
    }
    if (past.eigen) { historyCharts.push(chart(historyParent, "Leading eigenvalues of W at this epoch", eigenNowData, { tall: true })); }
    const rest = (caption, make, options) => restCharts.push(chart(restParent, caption, make, options));
    if (network.detail && network.detail.trial) {
      rest("Example trial: input", inputData);
      rest("Example trial: output and target", outputData);
    }
    if (network.loss) { rest("Loss and gradient during learning", learningData); }
    if (network.truncation) { rest("Truncating the change", truncationData); }
    if (spectra()) {
      rest("Singular values before and after learning", singularData);
      if (spectra().eigen) { rest("Eigenvalues before and after learning", eigenData, { tall: true }); }
    }
    weights();
  }

  function weights() {
    const names = spectra() ? spectra().singular.map((one) => one.name) : [];
    byId("weight-controls").hidden = names.length < 2;
    const weightChoice = byId("weight-choice");
    weightChoice.replaceChildren(...names.map((name, i) => element("option", { value: String(i), text: name })));
    weight = Math.min(weight, Math.max(names.length - 1, 0));
    weightChoice.value = String(weight);
  }

  // The available data determine the charts.
  function kind(one) {
    return JSON.stringify([Boolean(one.loss), Boolean(one.truncation), one.detail && Object.keys(one.detail),
      one.detail && one.detail.history && Object.keys(one.detail.history), one.detail && one.detail.spectra && Boolean(one.detail.spectra.eigen)]);
  }

  function open(index) {
    const before = network;
    stop();
    network = data.networks[index];
    choice.value = String(index);
    byId("network-previous").disabled = index === 0;
    byId("network-next").disabled = index === data.networks.length - 1;
    facts();
    notes();
    document.querySelectorAll("#networks-table tr.chosen").forEach((row) => row.classList.remove("chosen"));
    const button = document.querySelector('#networks-table button[data-network="' + index + '"]');
    if (button) { button.closest("tr").classList.add("chosen"); }
    if (!before || kind(before) !== kind(network)) {
      record = 0;
      build();
    } else {
      weights();
      restCharts.forEach((one) => one.redraw());
    }
    window.report.showAnatomy(network.detail && network.detail.anatomy);
    if (history()) { show(numbers(history().epochs).length - 1); }
  }

  // Opens a network and moves the focus to it.
  function visit(index) {
    open(index);
    byId("network-status").textContent = "Opened: " + network.name;
    byId("network-title").focus({ preventScroll: true });
    byId("network").scrollIntoView({ behavior: reducedMotion() ? "auto" : "smooth", block: "start" });
  }

  window.report.startNetwork = () => {
    data.networks.forEach((one, index) => choice.append(element("option", { value: String(index), text: one.name })));
    byId("network-controls").hidden = data.networks.length < 2;
    byId("network-controls").addEventListener("submit", (event) => event.preventDefault());
    byId("weight-controls").addEventListener("submit", (event) => event.preventDefault());
    choice.addEventListener("change", () => open(Number(choice.value)));
    byId("network-previous").addEventListener("click", () => open(Number(choice.value) - 1));
    byId("network-next").addEventListener("click", () => open(Number(choice.value) + 1));
    slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
    play.addEventListener("click", () => (timer === null ? start() : stop()));
    byId("weight-choice").addEventListener("change", (event) => { weight = Number(event.target.value); restCharts.forEach((one) => one.redraw()); });
    window.report.startAnatomy();
    open(0);
  };
  window.report.open = open;
  window.report.visit = visit;
})();
