// Whose directions the change of one matrix or gate of a network consists of.
(function () {
  "use strict";

  const { numbers, rows, column, shown, element, chart } = window.report;
  const { style: styleOf, text, theme } = window.rankscope;
  const byId = (id) => document.getElementById(id);

  // Names of partners with indices.
  const pretty = (name) => name.replace("W0^T", "W₀ᵀ").replace("W0", "W₀").replace("R^T", "Rᵀ");
  let blocks = [];
  let chosen = 0;
  let charts = [];

  function overlapData(side, vector) {
    const one = blocks[chosen][side];
    const values = rows(one.values);
    const index = values[0].map((_, i) => i + 1);
    return {
      traces: one.names.map((name, i) => ({
        x: index, y: values[i], mode: "lines+markers", name: text(pretty(name) + " (" + shown(one.nulls[i], 2) + ")"),
        line: { color: styleOf(i).color, width: 1.2 }, marker: { color: styleOf(i).color, symbol: styleOf(i).symbol, size: 7 },
        hovertemplate: "direction %{x}: %{y:.2f}<extra>" + text(pretty(name)) + "</extra>",
      })),
      axes: {
        x: { title: "direction of ΔW", range: [0.7, index.length + 0.3], dtick: 1 }, y: { title: "overlap of " + vector, range: [0, 1.03] }, showlegend: true,
      },
      summary: "The strongest direction has the overlaps " + one.names.map((name, i) => shown(values[i][0], 2) + " with " + pretty(name)).join(", ") + ".",
    };
  }

  function growthData() {
    const { growth } = blocks[chosen];
    const epochs = numbers(growth.epochs);
    const strength = rows(growth.strength);
    const traces = strength[0].map((_, i) => ({
      x: epochs, y: column(strength, i), mode: "lines+markers", name: String(i + 1),
      line: { color: styleOf(i).color, width: 1.5, dash: styleOf(i).dash }, marker: { color: styleOf(i).color, size: 4 },
      hovertemplate: "direction " + (i + 1) + "<br>epoch %{x}: %{y:.3~g}<extra></extra>",
    }));
    return {
      traces,
      axes: { x: { title: "epoch" }, y: { title: "strength uᵀ ΔW v" }, showlegend: true, legend: { title: { text: "direction ", font: { size: 12 } } } },
      summary: "Strength of each final direction in the change at earlier epochs; the first ends at " + shown(strength[strength.length - 1][0]) + ".",
    };
  }

  function shareData() {
    const { shares } = blocks[chosen];
    const components = numbers(shares.components);
    const values = rows(shares.values);
    const last = shares.names.length - 1;
    return {
      traces: shares.names.map((name, i) => ({
        x: components, y: values[i], mode: "lines", name: text(name),
        line: i === last ? { color: theme().quiet, width: 1.5, dash: "dot" } : { color: styleOf(i).color, width: 1.8, dash: styleOf(i).dash },
        hovertemplate: "%{x} components: %{y:.2f}<extra>" + text(name) + "</extra>",
      })),
      axes: { x: { title: "leading principal components", log: true, dtick: "D2" }, y: { title: "share of ‖ΔW‖²", range: [0, 1.03] }, showlegend: true },
      summary: "Share of the change in leading principal components.",
    };
  }

  function note() {
    const one = blocks[chosen];
    const sentences = [];
    if (one.visible !== undefined && one.edge) {
      sentences.push(one.visible + " of the " + one.directions + " directions would be visible in the spectrum of W if they were independent of W₀ (edge of the bulk: " + shown(one.edge) + ").");
    }
    if (one.intruders !== undefined) {
      const count = one.intruders === 0 ? "each resembles one" : one.intruders + (one.intruders === 1 ? " resembles none" : " resemble none");
      sentences.push("Of the ten leading left singular vectors of W, " + count + " of W₀ (|cos| of 0.5 or more).");
    }
    byId("anatomy-note").textContent = sentences.join(" ");
  }

  function build() {
    charts.forEach((one) => one.remove());
    const one = blocks[chosen];
    const add = (caption, make) => charts.push(chart(byId("anatomy-charts"), caption, make));
    charts = [];
    if (one.right) { add("What directions read (v)", () => overlapData("right", "v")); }
    if (one.left) { add("Where directions write (u)", () => overlapData("left", "u")); }
    if (one.growth) { add("Growth of the directions", growthData); }
    if (one.shares) { add("The change in activity and adjoints", shareData); }
    note();
  }

  window.report.startAnatomy = () => {
    byId("block-controls").addEventListener("submit", (event) => event.preventDefault());
    byId("block-choice").addEventListener("change", (event) => { chosen = Number(event.target.value); build(); });
  };

  // Shows the matrices of a network; none if they were not measured.
  window.report.showAnatomy = (measured) => {
    const before = blocks.length ? blocks[chosen].block : null;
    blocks = measured || [];
    byId("anatomy").hidden = blocks.length === 0;
    byId("block-controls").hidden = blocks.length < 2;
    byId("block-choice").replaceChildren(...blocks.map((one, i) => element("option", { value: String(i), text: one.block })));
    chosen = Math.max(blocks.findIndex((one) => one.block === before), 0);
    byId("block-choice").value = String(chosen);
    if (blocks.length) { build(); } else { charts.forEach((one) => one.remove()); charts = []; }
  };
})();
