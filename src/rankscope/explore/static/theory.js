// The theory page. Moving a slider requests the curves of the latest position, one request at a time. When the sliders
// rest, networks are trained and drawn as they finish.
(function () {
  "use strict";

  const { start, byId, get, listen, debounce, number, element, setText } = window.explore;
  const QUANTITIES = ["loss", "change_norm", "s1", "s2", "outlier", "shuffled_loss"];
  const NAMES = {
    loss: "Loss / initial loss", change_norm: "‖ΔW‖", s1: "s₁ of ΔW", s2: "s₂ of ΔW", outlier: "Outlier of W",
    shuffled_loss: "Loss after shuffle / initial loss",
  };
  const UNITS = {
    loss: "loss / initial", change_norm: "‖ΔW‖", s1: "s₁", s2: "s₂", outlier: "λ", shuffled_loss: "loss / initial",
  };
  const EXACT = "exact", EXPANSION = "third order";
  const LEAST_LOSS = 1e-4;
  const REST = 350; // milliseconds after the last movement

  const place = { gain: start.gain.start, target: start.target.start, log_rate: start.log_rate.start };
  let shown = null;      // the curves on the page
  let networks = null;   // {predicted: [], trained: []} of the curves shown
  let stopTraining = () => {};
  let movedAt = null;    // time of the first movement that is not drawn yet
  let busy = false;

  // ---- The sliders and their number boxes

  function read(name, text) {
    const { minimum, maximum } = start[name];
    const value = Number(text);
    return text === "" || !Number.isFinite(value) ? null : Math.min(Math.max(value, minimum), maximum);
  }

  function show(name) {
    byId(name).value = place[name];
    const box = byId(name + "-number");
    if (box && document.activeElement !== box) { box.value = Number(place[name].toPrecision(4)); }
    if (name === "log_rate") { byId("rate-value").textContent = number(10 ** place.log_rate, 2); }
    if (name === "log_rate") { byId("log_rate").setAttribute("aria-valuetext", number(10 ** place.log_rate, 2)); }
  }

  function prepare(name, moved) {
    const { minimum, maximum, step } = start[name];
    const slider = byId(name), box = byId(name + "-number");
    [slider, box].filter(Boolean).forEach((input) => Object.assign(input, { min: minimum, max: maximum, step }));
    slider.addEventListener("input", () => moved({ [name]: read(name, slider.value) }));
    if (box) {
      box.step = "any";
      box.addEventListener("input", () => {
        const value = read(name, box.value);
        if (value !== null) { moved({ [name]: value }); }
      });
      box.addEventListener("change", () => { box.value = Number(place[name].toPrecision(4)); });
      box.addEventListener("keydown", (event) => {
        const up = { ArrowUp: 1, ArrowDown: -1 }[event.key];
        if (!up) { return; }
        event.preventDefault();
        moved({ [name]: read(name, (place[name] + up * step).toFixed(4)) });
        box.value = Number(place[name].toPrecision(4));
      });
    }
    show(name);
  }

  function moveTo(values) {
    if (Object.entries(values).every(([name, value]) => place[name] === value)) { return; }
    Object.assign(place, values);
    if (movedAt === null) { movedAt = performance.now(); }
    show("gain");
    show("target");
    stopTraining();
    markPhase();
    follow();
    trainSoon();
  }

  async function follow() {
    if (busy) { return; }
    busy = true;
    try {
      while (!shown || shown.gain !== place.gain || shown.target !== place.target) {
        const { gain, target } = place;
        const began = movedAt;
        movedAt = null;
        const found = await get(`api/curves?gain=${gain}&target=${target}`);
        // The answer is rounded.
        shown = { ...found, gain, target };
        networks = null;
        draw();
        describe();
        if (began !== null) { performance.measure("slider to curves", { start: began, end: performance.now() }); }
      }
      setText("problem", "");
    } catch (error) {
      setText("problem", "No curves: " + (error instanceof TypeError ? "the server does not respond." : error.message));
    } finally {
      busy = false;
    }
  }

  // ---- The curves

  function joined(many, name) {
    const x = [], y = [];
    many.filter((one) => one[name]).forEach((one) => {
      x.push(...one.x, null);
      y.push(...one[name], null);
    });
    return { x, y };
  }

  function range(name) {
    const curves = Object.values(shown.theories).map((one) => one[name] || []);
    const seen = curves.concat(networks ? [...networks.predicted, ...networks.trained].map((one) => one[name] || []) : []);
    const top = Math.max(...seen.flat().filter((value) => value !== null && Number.isFinite(value)), 0);
    if (name === "loss") { return [Math.log10(LEAST_LOSS), Math.log10(3)]; }
    if (name === "outlier") { return [Math.min(shown.gain, 0.95) * 0.95, 1.02]; }
    return [0, top > 0 ? 1.05 * top : 1];
  }

  function traces(name) {
    const colors = rankscope.theme();
    const line = (theory, options) => ({
      x: shown.x, y: shown.theories[theory][name], mode: "lines", name: theory, line: options,
      hovertemplate: "%{y:.4g} at %{x:.3g}<extra>" + theory + "</extra>",
    });
    const found = [];
    if (networks) {
      found.push({
        ...joined(networks.predicted, name), mode: "lines", name: "predicted", hoverinfo: "skip",
        line: { color: colors.quiet, width: 1 }, opacity: 0.8,
      });
      found.push({
        ...joined(networks.trained, name), mode: "markers", name: "trained",
        marker: { color: colors.series[2], size: 5, symbol: "circle", line: { color: colors.ground, width: 0.5 } },
        hovertemplate: "%{y:.4g} at %{x:.3g}<extra>trained network</extra>",
      });
    }
    if (shown.theories[EXPANSION][name]) {
      found.push(line(EXPANSION, { color: colors.series[1], width: 2.5, dash: "dash" }));
    }
    found.push(line(EXACT, { color: colors.series[0], width: 2.5 }));
    return found;
  }

  function axes(name) {
    const last = shown.x[shown.x.length - 1];
    const found = {
      x: { title: "effective learning time β²τ", range: [0, 1.02 * last], automargin: false, nticks: 6 },
      y: { title: UNITS[name], log: name === "loss" ? "decades" : false, range: range(name), automargin: false },
      margin: { l: 62, r: 10, t: 6, b: 42 },
      uirevision: false,
    };
    if (name === "outlier") {
      const colors = rankscope.theme();
      const across = { type: "line", xref: "paper", x0: 0, x1: 1, layer: "below" };
      found.shapes = [
        { ...across, y0: 1, y1: 1, line: { color: colors.ink, width: 1, dash: "dot" } },
        { ...across, y0: shown.gain, y1: shown.gain, line: { color: colors.quiet, width: 1.5 } },
      ];
    }
    return found;
  }

  // Charts outside the viewport are drawn when they enter it.
  const hidden = new Set(), stale = new Set();
  const sight = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => {
    const name = target.dataset.quantity;
    if (isIntersecting) { hidden.delete(name); } else { hidden.add(name); }
    if (isIntersecting && stale.has(name)) { drawOne(name); }
  }), { rootMargin: "200px" });

  function drawOne(name) {
    stale.delete(name);
    rankscope.draw(byId("plot-" + name), () => ({ traces: traces(name), axes: axes(name) }));
  }

  function draw() {
    QUANTITIES.forEach((name) => (hidden.has(name) ? stale.add(name) : drawOne(name)));
  }

  // ---- Table and summary

  const lastOf = (values) => (values && values.length ? values[values.length - 1] : null);

  const NOTHING = 1e-6; // of the initial loss

  function atTheEnd(name, values) {
    const value = lastOf(values);
    return name === "loss" && value !== null && value < NOTHING ? "below 10⁻⁶" : number(value, 4);
  }

  function spread(values) {
    const known = values.filter((value) => value !== null && Number.isFinite(value));
    if (!known.length) { return "–"; }
    if (known.every((value) => Math.abs(value) < NOTHING)) { return "below 10⁻⁶"; }
    const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
    if (known.length === 1) { return number(mean); }
    const squares = known.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    return `${number(mean)} ± ${number(Math.sqrt(squares / (known.length - 1)), 2)}`;
  }

  function describe() {
    const { theories, convergence } = shown;
    const rows = [["β²τ at a loss of 5 %", number(convergence[EXACT], 4), number(convergence[EXPANSION], 4),
      networks ? spread(networks.trained.map((one) => one.convergence)) : "–"]];
    QUANTITIES.forEach((name) => rows.push([
      NAMES[name],
      atTheEnd(name, theories[EXACT][name]),
      atTheEnd(name, theories[EXPANSION][name]),
      networks ? spread(networks.trained.map((one) => lastOf(one[name]))) : "–",
    ]));
    byId("values").replaceChildren(...rows.map(([heading, ...cells]) => {
      const row = element("tr");
      row.append(element("th", heading, { scope: "row" }));
      row.append(...cells.map((text) => element("td", text, { class: "number" })));
      return row;
    }));
    summarize();
  }

  const summarize = debounce(700, () => {
    const { theories, convergence, gain, target } = shown;
    const end = (theory, name) => number(lastOf(theories[theory][name]));
    setText("summary", `g = ${number(gain)}, target ${number(target)}. Exact theory: the loss falls to 5 % at an effective ` +
      `learning time of ${number(convergence[EXACT])}; at the end the change has norm ${end(EXACT, "change_norm")}, ` +
      `singular values ${end(EXACT, "s1")} and ${end(EXACT, "s2")}, outlier ${end(EXACT, "outlier")}, loss after ` +
      `shuffle ${end(EXACT, "shuffled_loss")}. Third order: norm ${end(EXPANSION, "change_norm")}.`);
  });

  // ---- Networks

  function train() {
    if (!shown || shown.gain !== place.gain || shown.target !== place.target) { trainSoon(); return; }
    const { gain, target } = place;
    const units = byId("units").value;
    networks = { predicted: [], trained: [] };
    const skipped = new Set();
    setText("training", `Training networks of ${units} units …`);
    const stop = listen(`api/networks?gain=${gain}&target=${target}&units=${units}`, (values, close) => {
      if (values.kind === "done") {
        close();
        const count = networks.trained.length;
        const why = skipped.size ? " Skipped: " + [...skipped].join("; ") + "." : "";
        setText("training", `${count} networks of ${units} units trained.${why}`);
      } else if (values.kind === "skipped") {
        skipped.add(values.reason);
        if (values.sample === null) { close(); setText("training", values.reason); }
      } else {
        networks[values.kind].push(values);
        setText("training", `Training networks of ${units} units: ${networks.trained.length} finished …`);
        draw();
        describe();
      }
    }, (closed) => {
      if (closed !== null) { stop(); setText("training", "Networks: the server does not respond."); }
    });
    stopTraining = () => {
      stop();
      stopTraining = () => {};
      setText("training", "");
    };
  }

  const trainSoon = debounce(REST, () => {
    stale.forEach(drawOne);
    train();
  });

  // ---- The phase diagram

  const SETTLES = 0, OVERSHOOTS = 1, DIVERGES = 2;
  const WORDS = ["settles", "overshoots", "diverges"];
  const FINE = 128;
  const fine = (from, to) => Array.from({ length: FINE }, (_, index) => from + (to - from) * index / (FINE - 1));
  const table = start.phases;
  const logTargets = table.target.map(Math.log10);
  const fineGains = fine(table.gain[0], table.gain[table.gain.length - 1]);
  const fineTargets = fine(logTargets[0], logTargets[logTargets.length - 1]);

  function locate(grid, value) {
    let index = 0;
    while (index < grid.length - 2 && grid[index + 1] <= value) { index += 1; }
    return [index, Math.min(Math.max((value - grid[index]) / (grid[index + 1] - grid[index]), 0), 1)];
  }

  function rateAt(name, gain, logTarget) {
    const [i, u] = locate(table.gain, gain), [j, v] = locate(logTargets, logTarget);
    const rows = table[name];
    return (1 - u) * ((1 - v) * rows[i][j] + v * rows[i][j + 1]) + u * ((1 - v) * rows[i + 1][j] + v * rows[i + 1][j + 1]);
  }

  const fineRates = Object.fromEntries(["settles", "diverges"].map((name) => (
    [name, fineTargets.map((logTarget) => fineGains.map((gain) => rateAt(name, gain, logTarget)))]
  )));

  function outcome(settles, diverges) {
    return place.log_rate < settles ? SETTLES : place.log_rate < diverges ? OVERSHOOTS : DIVERGES;
  }

  function phaseTraces() {
    const colors = WORDS.map((word) => rankscope.color("phase-" + word));
    const { ink, ground } = rankscope.theme();
    const z = fineTargets.map((_, j) => fineGains.map((_, i) => outcome(fineRates.settles[j][i], fineRates.diverges[j][i])));
    const text = z.map((row) => row.map((kind) => WORDS[kind]));
    return [
      {
        type: "heatmap", x: fineGains, y: fineTargets.map((value) => 10 ** value), z, text, zmin: -0.5, zmax: 2.5,
        colorscale: [0, 1, 2].flatMap((kind) => [[kind / 3, colors[kind]], [(kind + 1) / 3, colors[kind]]]),
        showscale: false, hovertemplate: "g = %{x:.2f}, ẑ = %{y:.2f}: %{text}<extra></extra>",
      },
      {
        x: [place.gain], y: [place.target], mode: "markers", hoverinfo: "skip",
        marker: { size: 15, color: "rgba(0,0,0,0)", line: { color: ground, width: 6 } },
      },
      {
        x: [place.gain], y: [place.target], mode: "markers", hoverinfo: "skip",
        marker: { size: 15, color: "rgba(0,0,0,0)", line: { color: ink, width: 3 } },
      },
    ];
  }

  function drawPhases() {
    const half = (grid) => (grid[1] - grid[0]) / 2;
    rankscope.draw(byId("plot-phases"), () => ({
      traces: phaseTraces(),
      axes: {
        x: { title: "gain g", range: [fineGains[0] - half(fineGains), fineGains[FINE - 1] + half(fineGains)], automargin: false },
        y: {
          title: "target ẑ", log: true, automargin: false, tickvals: [0.1, 0.2, 0.5, 1, 2, 4, 8],
          range: [fineTargets[0] - half(fineTargets), fineTargets[FINE - 1] + half(fineTargets)],
        },
        margin: { l: 56, r: 10, t: 6, b: 46 },
        uirevision: false,
      },
    }));
  }

  const phaseSoon = debounce(60, () => {
    Plotly.restyle(byId("plot-phases"), { x: [[place.gain]], y: [[place.target]] }, [1, 2]);
  });
  const describePhase = debounce(400, () => {
    const logTarget = Math.log10(place.target);
    const settles = rateAt("settles", place.gain, logTarget), diverges = rateAt("diverges", place.gain, logTarget);
    const word = WORDS[outcome(settles, diverges)];
    setText("phase", `At g = ${number(place.gain)}, ẑ = ${number(place.target)}, learning rate ` +
      `${number(10 ** place.log_rate, 2)} (1 − g²)²: ${word}. It settles below about ${number(10 ** settles, 2)}, ` +
      `and diverges from about ${number(10 ** diverges, 2)}.`);
  });

  function markPhase() {
    phaseSoon();
    describePhase();
  }

  const rateSoon = debounce(30, drawPhases);

  // ---- Start

  document.querySelectorAll("form").forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));
  prepare("gain", moveTo);
  prepare("target", moveTo);
  prepare("log_rate", (values) => {
    Object.assign(place, values);
    show("log_rate");
    rateSoon();
    describePhase();
  });
  start.units.forEach((units) => {
    const option = element("option", units, { value: units });
    option.selected = units === start.start_units;
    byId("units").append(option);
  });
  byId("units").addEventListener("change", () => {
    stopTraining();
    networks = null;
    draw();
    describe();
    train();
  });
  QUANTITIES.forEach((name) => {
    byId("plot-" + name).dataset.quantity = name;
    sight.observe(byId("plot-" + name));
  });
  drawPhases();
  byId("plot-phases").on("plotly_click", (event) => {
    const { x, y } = event.points[0];
    moveTo({ gain: read("gain", x.toFixed(2)), target: read("target", y.toPrecision(3)) });
  });
  markPhase();
  follow().then(trainSoon);
})();
