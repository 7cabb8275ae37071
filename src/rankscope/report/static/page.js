// Starts the charts and the buttons of the table.
(function () {
  "use strict";

  window.report.startComparison(window.report.visit);
  window.report.startNetwork();
  const table = document.getElementById("networks-table");
  table.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-network]");
    if (button) { window.report.visit(Number(button.dataset.network)); }
  });
})();
