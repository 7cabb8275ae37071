// Data of the page. Arrays are base64 of little-endian float32; NaN marks missing values.
(function () {
  "use strict";

  const data = JSON.parse(document.getElementById("report-data").textContent);

  // Values of a packed array as a flat list; null if not finite, which plotly skips.
  function numbers(packed) {
    if (!packed.numbers) {
      const bytes = Uint8Array.from(atob(packed.data), (character) => character.charCodeAt(0));
      const view = new DataView(bytes.buffer);
      const count = bytes.length / 4;
      packed.numbers = new Array(count);
      for (let index = 0; index < count; index += 1) {
        const value = view.getFloat32(4 * index, true);
        packed.numbers[index] = Number.isFinite(value) ? value : null;
      }
    }
    return packed.numbers;
  }

  // Rows of a packed matrix, or of the matrix at `place` along the first dimensions of an array.
  function rows(packed, ...place) {
    const shape = packed.shape;
    const [height, width] = shape.slice(-2);
    let block = 0;
    place.forEach((index, axis) => { block = block * shape[axis] + index; });
    const all = numbers(packed);
    const start = block * height * width;
    return Array.from({ length: height }, (_, row) => all.slice(start + row * width, start + (row + 1) * width));
  }

  function column(matrix, index) {
    return matrix.map((row) => row[index]);
  }

  // A number with `digits` significant digits.
  function shown(value, digits) {
    if (value === null || value === undefined) { return "–"; }
    if (Number.isInteger(value) && Math.abs(value) < 1e6) { return String(value); }
    const text = value.toPrecision(digits || 3);
    return Math.abs(value) < 1e-3 || text.includes("e") ? Number(text).toExponential() : String(Number(text));
  }

  window.report = { data, numbers, rows, column, shown };
})();
