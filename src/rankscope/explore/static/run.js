// The run page: an event stream sends new results, which are added to the charts and the table.
(function () {
  "use strict";

  const { byId, get, listen, debounce, number, element, setText, start } = window.explore;
  const { quantities, labels: LABELS } = start;
  const USUAL = ["task", "gain", "hidden_size"];

  const networks = new Map();
  let failed = {}, running = {};
  let chosen = null;

  const word = (label) => LABELS[label] || (quantities[label] || {}).title || label.replaceAll("_", " ");
  const text = (value) => typeof value === "number" ? number(value, 4) : String(value ?? "–");

  // ---- Labels

  function varying() {
    const seen = new Map();
    for (const { labels } of [...networks.values(), ...Object.values(running), ...Object.values(failed)]) {
      for (const [name, value] of Object.entries(labels)) {
        if (!seen.has(name)) { seen.set(name, new Set()); }
        seen.get(name).add(value);
      }
    }
    const names = [...seen.keys()].filter((name) => seen.get(name).size > 1);
    const place = (name) => (name === "sample" ? Infinity : USUAL.includes(name) ? USUAL.indexOf(name) : USUAL.length);
    return names.sort((a, b) => place(a) - place(b) || a.localeCompare(b));
  }

  function offer(select, names, preferred) {
    const wanted = select.dataset.touched && names.includes(select.value) ? select.value : preferred;
    if ([...select.options].map((option) => option.value).join() !== names.join()) {
      select.replaceChildren(...names.map((name) => element("option", name ? word(name) : "nothing", { value: name })));
    }
    select.value = names.includes(wanted) ? wanted : names[0];
  }

  function offerLabels() {
    const names = varying();
    const along = names.filter((name) => name !== "sample");
    const numeric = along.filter((name) => [...networks.values()].every(({ labels }) => typeof labels[name] === "number"));
    const first = numeric.includes("gain") ? "gain" : numeric[0] || along[0] || names[0] || "sample";
    offer(byId("along"), names.length ? names : ["sample"], first);
    const rest = ["", ...names.filter((name) => name !== byId("along").value && name !== "sample")];
    offer(byId("apart"), rest, rest.includes("task") ? "task" : rest[1] || "");
  }

  // Values in a fixed order.
  const ordered = (values) => [...values].sort((a, b) => (
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b))
  ));

  function groups() {
    const apart = byId("apart").value;
    const found = new Map();
    for (const [digest, one] of networks) {
      const key = apart ? one.labels[apart] : "";
      if (!found.has(key)) { found.set(key, []); }
      found.get(key).push([digest, one]);
    }
    return ordered(found.keys()).map((key, index) => ({ key, index, members: found.get(key) }));
  }

  // ---- Charts

  function measuredTraces(name) {
    const along = byId("along").value;
    return groups().flatMap(({ key, index, members }) => {
      const style = rankscope.style(index);
      const known = members.filter(([, one]) => (
        one.status !== "diverged" && Number.isFinite(one.measured[name]) && one.labels[along] !== undefined
      ));
      const at = new Map();
      known.forEach(([, one]) => {
        const x = one.labels[along];
        at.set(x, [...(at.get(x) || []), one.measured[name]]);
      });
      const places = ordered(at.keys());
      const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
      return [
        {
          x: places, y: places.map((x) => mean(at.get(x))), mode: "lines", hoverinfo: "skip",
          line: { color: style.color, width: 2, dash: style.dash },
        },
        {
          x: known.map(([, one]) => one.labels[along]), y: known.map(([, one]) => one.measured[name]),
          customdata: known.map(([digest]) => digest), mode: "markers",
          marker: { color: style.color, symbol: style.symbol, size: 8, opacity: 0.85 },
          hovertemplate: `%{y:.4g} at %{x}<extra>${escaped(text(key))}</extra>`,
        },
      ];
    });
  }

  // Plotly interprets HTML in its labels.
  const escaped = (value) => value.replace(/[&<>%]/g, (sign) => `&#${sign.charCodeAt(0)};`);

  function lossTraces() {
    return groups().flatMap(({ key, index, members }) => {
      const style = rankscope.style(index);
      return members.filter(([, one]) => one.loss.length).map(([digest, one]) => ({
        x: one.epoch, y: one.loss, customdata: one.epoch.map(() => digest), mode: "lines",
        opacity: digest === chosen ? 1 : networks.size > 60 ? 0.35 : 0.6, line: { color: style.color, width: digest === chosen ? 3.5 : 1.2 },
        hovertemplate: `loss %{y:.3g} at epoch %{x}<extra>${escaped(text(key))}</extra>`,
      }));
    });
  }

  // Decades between two ticks.
  function decades() {
    const seen = [...networks.values()].flatMap(({ loss }) => loss).filter((value) => value > 0).map(Math.log10);
    const span = seen.reduce((most, value) => Math.max(most, value), -Infinity) - seen.reduce((least, value) => Math.min(least, value), Infinity);
    return Math.max(1, Math.ceil(span / 7) || 1);
  }

  function numericAlong() {
    return [...networks.values()].every(({ labels }) => typeof labels[byId("along").value] === "number");
  }

  function prepareCharts() {
    Object.entries(quantities).forEach(([name, { title }]) => {
      const figure = element("figure", null, { class: "chart", id: "figure-" + name });
      figure.append(element("figcaption", title, { id: "cap-" + name }));
      figure.append(element("div", null, {
        class: "plot short", id: "plot-" + name, role: "img", "aria-labelledby": "cap-" + name, "aria-describedby": "networks-caption",
      }));
      byId("measured").append(figure);
    });
  }

  function drawCharts() {
    Object.keys(quantities).forEach((name) => {
      const there = [...networks.values()].some((one) => Number.isFinite(one.measured[name]));
      byId("figure-" + name).hidden = !there;
      if (!there) { return; }
      draw("plot-" + name, () => ({
        traces: measuredTraces(name),
        axes: {
          x: { title: word(byId("along").value), type: numericAlong() ? "linear" : "category" },
          y: { rangemode: "tozero" },
        },
      }));
    });
    draw("plot-loss", () => ({
      traces: lossTraces(),
      axes: { x: { title: "epoch", rangemode: "tozero" }, y: { title: "loss", log: true, dtick: decades() } },
    }));
    const diverged = [...networks.values()].filter(({ status }) => status === "diverged").length;
    setText("diverged-note", diverged ? `${diverged} diverged: only the loss is shown.` : "");
    byId("legend").replaceChildren(...(byId("apart").value ? groups() : []).map(({ key, index }) => {
      const item = element("li");
      const sign = element("span", { circle: "●", square: "■", "triangle-up": "▲", diamond: "◆", "triangle-down": "▼", cross: "✚", x: "✖" }[rankscope.style(index).symbol], { "aria-hidden": "true" });
      sign.style.color = rankscope.style(index).color;
      item.append(sign, element("span", `${word(byId("apart").value)} ${text(key)}`));
      return item;
    }));
  }

  function draw(id, make) {
    const place = byId(id);
    rankscope.draw(place, make);
    if (!place.dataset.listens) {
      place.dataset.listens = "yes";
      place.on("plotly_click", (event) => {
        const digest = event.points.map((point) => point.customdata).find(Boolean);
        if (digest) { choose(digest); }
      });
    }
  }

  // ---- The table

  const columns = () => Object.entries(quantities).filter(([name]) => [...networks.values()].some(({ measured }) => Number.isFinite(measured[name])));

  function row(digest, labels, status, measured) {
    const made = element("tr", null, digest === chosen ? { class: "chosen" } : {});
    const heading = element("th", null, { scope: "row" });
    if (measured) {
      const button = element("button", digest, { type: "button", class: "link", "data-digest": digest });
      heading.append(button);
    } else {
      heading.textContent = digest;
    }
    made.append(heading);
    byId("head").dataset.names.split(",").filter(Boolean).forEach((name) => {
      const number_ = typeof labels[name] === "number";
      made.append(element("td", text(labels[name]), number_ ? { class: "number" } : {}));
    });
    columns().forEach(([name]) => made.append(element("td", measured ? number(measured[name], 4) : "–", { class: "number" })));
    made.append(element("td", status));
    return made;
  }

  function drawTable() {
    const names = varying();
    byId("head").dataset.names = names.join();
    const line = element("tr");
    line.append(element("th", "network", { scope: "col" }));
    const numeric = (name) => [...networks.values()].some(({ labels }) => typeof labels[name] === "number");
    names.forEach((name) => line.append(element("th", word(name), { scope: "col", class: numeric(name) ? "number" : "" })));
    columns().forEach(([, { title }]) => line.append(element("th", title, { scope: "col", class: "number" })));
    line.append(element("th", "state", { scope: "col" }));
    byId("head").replaceChildren(line);
    const key = ({ labels }) => names.map((name) => labels[name]);
    const compare = (a, b) => {
      const [x, y] = [key(a[1]), key(b[1])];
      for (let index = 0; index < x.length; index += 1) {
        if (x[index] !== y[index]) { return ordered([x[index], y[index]])[0] === x[index] ? -1 : 1; }
      }
      return a[0] < b[0] ? -1 : 1;
    };
    const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.digest : null;
    byId("rows").replaceChildren(
      ...Object.entries(failed).map(([digest, { labels, error, message }]) => row(digest, labels, `failed: ${error}: ${message}`)),
      ...Object.entries(running).map(([digest, { labels }]) => row(digest, labels, "running")),
      ...[...networks].sort(compare).map(([digest, one]) => row(digest, one.labels, one.status, one.measured)),
    );
    if (focused) {
      const again = byId("rows").querySelector(`[data-digest="${CSS.escape(focused)}"]`);
      if (again) { again.focus({ preventScroll: true }); }
    }
  }

  // ---- One network

  async function choose(digest) {
    let found;
    try {
      found = await get("api/run/jobs/" + encodeURIComponent(digest));
    } catch (error) {
      setText("problem", `Network ${digest}: ${error.message}`);
      return;
    }
    setText("problem", "");
    chosen = digest;
    byId("one").hidden = false;
    setText("one-heading", `One network: ${digest}`);
    const facts = [...Object.entries(found.labels), ["status", found.status], ...Object.entries(found.measured), ...Object.entries(found.provenance)];
    byId("facts").replaceChildren(...facts.flatMap(([name, value]) => [
      element("dt", word(name)), element("dd", text(value)),
    ]));
    const charts = [
      ["loss", "Loss during learning", found.epoch, found.loss, "epoch", "loss", "lines", "decades"],
      ["singular", "Singular values of the change ΔW", found.singular_value.map((_, index) => index + 1), found.singular_value, "index", "singular value", "markers", false],
    ];
    if (found.truncation_loss) {
      charts.push(["truncation", "Loss with truncated ΔW", found.rank, found.truncation_loss, "rank", "loss", "lines+markers", "decades"]);
    }
    byId("details").replaceChildren(...charts.filter((chart) => chart[3].length).map(([name, caption, x, y, along, unit, mode, log]) => {
      const figure = element("figure", null, { class: "chart" });
      figure.append(element("figcaption", caption, { id: "cap-one-" + name }));
      const plot = element("div", null, { class: "plot short", role: "img", "aria-labelledby": "cap-one-" + name });
      figure.append(plot);
      requestAnimationFrame(() => rankscope.draw(plot, () => ({
        traces: [{ x, y, mode, line: { color: rankscope.theme().series[0], width: 2 }, marker: { size: 7, color: rankscope.theme().series[0] } }],
        axes: { x: { title: along }, y: { title: unit, log, ...(log ? {} : { rangemode: "tozero" }) } },
      })));
      return figure;
    }));
    drawTable();
    drawCharts();
    byId("one-heading").focus();
    byId("one").scrollIntoView({ behavior: rankscope.reducedMotion() ? "auto" : "smooth" });
  }

  // ---- Start

  const redraw = debounce(50, () => {
    offerLabels();
    drawCharts();
    drawTable();
  });

  function take({ counts, networks: found, gone, failed: lost, running: busy, complete, error }) {
    gone.forEach((digest) => networks.delete(digest));
    Object.entries(found).forEach(([digest, one]) => networks.set(digest, one));
    setText("problem", error || "");
    if (counts) {
      failed = lost;
      running = busy;
      byId("done").max = Math.max(counts.total, 1);
      byId("done").value = counts.done;
      const parts = [`${counts.done} of ${counts.total} networks finished`];
      ["running", "failed", "waiting"].filter((key) => counts[key]).forEach((key) => (
        parts.push(`${counts[key]} ${{ running: "running", failed: "failed", waiting: "waiting" }[key]}`)
      ));
      setText("counts", parts.join(", ") + (complete ? "." : "; reading …"));
    }
    redraw();
  }

  byId("rows").addEventListener("click", (event) => {
    const button = event.target.closest("button[data-digest]");
    if (button) { choose(button.dataset.digest); }
  });
  ["along", "apart"].forEach((id) => byId(id).addEventListener("change", () => {
    byId(id).dataset.touched = "yes";
    offerLabels();
    drawCharts();
  }));
  prepareCharts();
  listen("api/run", take, (closed) => {
    if (closed === null) { setText("problem", ""); return; }
    setText("problem", closed ? "The server has ended." : "The server does not respond; retrying …");
  });
})();
