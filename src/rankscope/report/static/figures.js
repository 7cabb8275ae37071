// Charts with caption, description for screen readers, and their numbers as a table.
(function () {
  "use strict";

  const { shown } = window.report;
  const MOST_ROWS = 400;
  const waiting = [];
  let count = 0;

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    Object.entries(attributes || {}).forEach(([name, value]) => {
      if (name === "text") { made.textContent = value; } else { made.setAttribute(name, value); }
    });
    made.append(...children);
    return made;
  }

  // Adds a chart to `parent`. make() -> {traces, axes, summary}; returns {redraw, remove, plot, figure}.
  // Charts are drawn one by one from a queue, so that the page is usable at once.
  function chart(parent, caption, make, options) {
    const { tall, onClick } = options || {};
    count += 1;
    const id = "chart-" + count;
    const plot = element("div", { class: "plot" + (tall ? " tall" : ""), id, role: "img", "aria-labelledby": id + "-caption " + id + "-summary" });
    const captionElement = element("figcaption", { id: id + "-caption", text: caption });
    const summary = element("p", { class: "visually-hidden", id: id + "-summary" });
    const numbers = element("details", {}, element("summary", { text: "Numbers of this chart", "aria-label": "Numbers of this chart: " + caption }));
    const figure = element("figure", { class: "chart" }, captionElement, plot, summary, numbers);
    parent.append(figure);
    let drawn = false;
    let latest = null;

    function made() {
      latest = make();
      summary.textContent = latest.summary || "";
      if (numbers.open) { fill(); }
      return latest;
    }

    function fill() {
      [...numbers.children].slice(1).forEach((child) => child.remove());
      numbers.append(tableOf(caption, latest));
    }

    numbers.addEventListener("toggle", () => { if (numbers.open && latest) { fill(); } });

    function first() {
      if (drawn || !figure.isConnected) { return; }
      drawn = true;
      window.rankscope.draw(plot, made);
      if (onClick) { plot.on("plotly_click", (event) => onClick(event.points[0])); }
    }

    waiting.push(first);
    work();
    return {
      figure, plot,
      redraw() { if (drawn) { window.rankscope.draw(plot, made); } },
      remove() { window.rankscope.forget(plot); figure.remove(); },
    };
  }

  let working = false;
  function work() {
    if (working) { return; }
    working = true;
    const step = () => {
      const next = waiting.shift();
      if (next) { next(); setTimeout(step, 0); } else { working = false; document.body.dataset.drawn = "yes"; }
    };
    setTimeout(step, 0);
  }

  // The first points of a chart as a table.
  function tableOf(caption, { traces, axes }) {
    const plain = (title) => (title || "").replace(/<[^>]*>/g, "").replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
    const listed = traces.filter((trace) => trace.x && trace.meta !== "decoration");
    const named = listed.length > 1;
    const head = element("tr", {});
    const headings = [...(named ? ["curve"] : []), plain(axes.x.title), plain(axes.y.title)];
    headings.forEach((text) => head.append(element("th", { scope: "col", text })));
    const body = element("tbody", {});
    let total = 0;
    listed.forEach((trace) => Array.from(trace.x).forEach((x, index) => {
      if (trace.y[index] === null || trace.y[index] === undefined) { return; }
      total += 1;
      if (total > MOST_ROWS) { return; }
      const cells = [...(named ? [plain(trace.name)] : []), typeof x === "number" ? shown(x, 5) : x, shown(trace.y[index], 4)];
      body.append(element("tr", {}, ...cells.map((text) => element("td", { text }))));
    }));
    const words = caption + (total > MOST_ROWS ? ", the first " + MOST_ROWS + " of " + total + " points" : "");
    const table = element("table", {}, element("caption", { text: words }), element("thead", {}, head), body);
    return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Numbers: " + caption }, table);
  }

  // Adds a labeled select to `parent`; onChange(value) after a choice.
  function select(parent, id, label, options, value, onChange) {
    const choice = element("select", { id });
    options.forEach(([optionValue, text]) => choice.append(element("option", { value: optionValue, text })));
    choice.value = value;
    choice.addEventListener("change", () => onChange(choice.value));
    parent.append(element("div", { class: "field" }, element("label", { for: id, text: label }), choice));
    return choice;
  }

  Object.assign(window.report, { element, chart, select });
})();
