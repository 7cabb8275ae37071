// Shared by the scripts of all pages: the color theme with its button, and charts that follow it.
//
//   rankscope.color(name)                one color of the page, in the current theme
//   rankscope.theme()                    colors of the page
//   rankscope.style(index)               color, marker symbol and dash of the curve `index`
//   rankscope.layout(axes)               a plotly layout in these colors
//   rankscope.draw(element, make)        draws make() -> {traces, axes}, again whenever the theme changes
//   rankscope.forget(element)            stops redrawing a chart that was removed
//   rankscope.onTheme(listener)          calls listener() after a change of theme
//   rankscope.text(string)               escapes a string for plotly's texts, which contain tags
//   rankscope.scale(fraction)            a color of an ordered scale
//   rankscope.reducedMotion()            whether the reader prefers reduced motion
(function () {
  "use strict";

  const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x"];
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  const STORED = "rankscope-theme";
  const root = document.documentElement;
  const listeners = [() => drawn.forEach((element) => render(element, element.rankscopeMake))];
  const drawn = new Set();
  const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
  const lessMotion = window.matchMedia("(prefers-reduced-motion: reduce)");

  function stored() {
    // Pages opened from a file may have no storage.
    try { return localStorage.getItem(STORED); } catch (error) { return null; }
  }

  function store(choice) {
    try {
      if (choice) { localStorage.setItem(STORED, choice); } else { localStorage.removeItem(STORED); }
    } catch (error) { /* keep it for this visit */ }
  }

  function chosen() {
    return root.dataset.theme || "";
  }

  function choose(choice) {
    if (choice) { root.dataset.theme = choice; } else { delete root.dataset.theme; }
    const button = document.getElementById("theme-toggle");
    if (button) { button.textContent = "Theme: " + (choice || "system"); }
    listeners.forEach((listener) => listener());
  }

  function isDark() {
    return chosen() ? chosen() === "dark" : systemDark.matches;
  }

  // A custom property keeps its text, light-dark(#..., #...), of which plotly needs one color.
  function color(name) {
    const text = getComputedStyle(root).getPropertyValue("--" + name).trim();
    const pair = /^light-dark\((.+), *(.+)\)$/.exec(text);
    return pair ? pair[isDark() ? 2 : 1] : text;
  }

  function theme() {
    return {
      dark: isDark(),
      ground: color("ground"), raised: color("raised"), ink: color("ink"), quiet: color("quiet"),
      line: color("line"), grid: color("grid"), accent: color("accent"), focus: color("focus"),
      series: SYMBOLS.map((_, index) => color("series-" + index)),
      font: getComputedStyle(root).fontFamily,
    };
  }

  function style(index) {
    const count = SYMBOLS.length;
    const within = index % count;
    const turns = Math.floor(index / count);
    return {
      color: theme().series[within],
      symbol: SYMBOLS[(within + turns) % count],
      dash: DASHES[index % DASHES.length],
    };
  }

  // plotly interprets some tags and entities.
  function text(string) {
    return String(string).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }

  // Viridis without the end of low contrast on the page's background.
  function scale(fraction) {
    const stops = isDark()
      ? ["#7a7dc9", "#5f86c4", "#3f93b0", "#21918c", "#22a884", "#44bf70", "#7ad151", "#bddf26", "#fde725"]
      : ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#a8c72a"];
    const place = Math.min(Math.max(fraction, 0), 1) * (stops.length - 1);
    const low = Math.min(Math.floor(place), stops.length - 2);
    const channel = (hex, at) => parseInt(hex.slice(at, at + 2), 16);
    const mixed = [1, 3, 5].map((at) => Math.round(
      channel(stops[low], at) * (1 - place + low) + channel(stops[low + 1], at) * (place - low)));
    return "rgb(" + mixed.join(",") + ")";
  }

  function axis(options, colors) {
    const { title, log, ...others } = options || {};
    return {
      title: { text: title || "", standoff: 8, font: { size: 13 } },
      type: log ? "log" : undefined,
      automargin: true,
      color: colors.ink,
      gridcolor: colors.grid,
      zerolinecolor: colors.line,
      linecolor: colors.line,
      showline: true,
      ticks: "outside",
      tickcolor: colors.line,
      tickfont: { size: 12 },
      exponentformat: "power",
      minexponent: 4,
      dtick: log === "decades" ? 1 : undefined,
      ...others,
    };
  }

  // axes: {x: {title, log, range, ...}, y: {...}, ...other keys of a plotly layout}
  function layout(axes) {
    const { x, y, ...others } = axes || {};
    const colors = theme();
    return {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: colors.font, size: 13, color: colors.ink },
      colorway: colors.series,
      margin: { l: 56, r: 14, t: 8, b: 48 },
      xaxis: axis(x, colors),
      yaxis: axis(y, colors),
      hoverlabel: { bgcolor: colors.raised, bordercolor: colors.line, font: { color: colors.ink, size: 13 } },
      hovermode: "closest",
      dragmode: false,
      showlegend: false,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } },
      uirevision: "kept",
      ...others,
    };
  }

  function config() {
    return {
      displaylogo: false, displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: "reset",
      showTips: false, plotlyServerURL: "",
    };
  }

  function render(element, make) {
    const { traces, axes } = make();
    return Plotly.react(element, traces, layout(axes), config());
  }

  // Returns a function that redraws the chart.
  function draw(element, make) {
    element.rankscopeMake = make;
    drawn.add(element);
    render(element, make);
    return () => render(element, element.rankscopeMake);
  }

  function forget(element) {
    drawn.delete(element);
    if (element.rankscopeMake) { Plotly.purge(element); }
  }

  function onTheme(listener) {
    listeners.push(listener);
  }

  choose(stored() === "dark" || stored() === "light" ? stored() : "");
  systemDark.addEventListener("change", () => listeners.forEach((listener) => listener()));
  const button = document.getElementById("theme-toggle");
  if (button) {
    button.addEventListener("click", () => {
      const next = { "": isDark() ? "light" : "dark", dark: "light", light: "dark" };
      const choice = chosen() && (chosen() === "dark") !== systemDark.matches ? "" : next[chosen()];
      store(choice);
      choose(choice);
    });
  }

  window.rankscope = {
    color, theme, style, layout, config, draw, forget, onTheme, text, scale, reducedMotion: () => lessMotion.matches,
  };
})();
