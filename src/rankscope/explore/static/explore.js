// Shared by both pages: initial values, requests, event streams, formatting.
(function () {
  "use strict";

  const start = JSON.parse(document.getElementById("start").textContent);
  const byId = (id) => document.getElementById(id);

  // Addresses are relative to the page, whose address contains the token.
  async function get(address, signal) {
    const response = await fetch(address, { signal });
    const values = await response.json();
    if (!response.ok) { throw new Error(values.error || "error " + response.status); }
    return values;
  }

  // Returns a function that ends the stream.
  function listen(address, onValues, onTrouble) {
    const source = new EventSource(address);
    source.onmessage = (event) => onValues(JSON.parse(event.data), () => source.close());
    source.onerror = () => onTrouble && onTrouble(source.readyState === EventSource.CLOSED);
    source.onopen = () => onTrouble && onTrouble(null);
    return () => source.close();
  }

  // Debounces an action.
  function debounce(milliseconds, action) {
    let timer = 0;
    return (...given) => {
      clearTimeout(timer);
      timer = setTimeout(() => action(...given), milliseconds);
    };
  }

  function number(value, digits) {
    if (value === null || value === undefined || !Number.isFinite(value)) { return "–"; }
    return String(Number(value.toPrecision(digits || 3)));
  }

  function element(name, text, attributes) {
    const made = document.createElement(name);
    if (text !== undefined && text !== null) { made.textContent = text; }
    Object.entries(attributes || {}).forEach(([key, value]) => made.setAttribute(key, value));
    return made;
  }

  function setText(id, text) {
    const place = byId(id);
    if (place.textContent !== text) { place.textContent = text; }
    if (place.getAttribute("role") === "alert") { place.hidden = !text; }
  }

  window.explore = { start, byId, get, listen, debounce, number, element, setText };
})();
