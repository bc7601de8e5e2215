// SPDX-License-Identifier: Apache-2.0
// Filters and sorts the table; without it the page shows everything, by need of review.
"use strict";
(function () {
  const body = document.querySelector("#slides tbody");
  const rows = Array.from(body.rows).map(function (row) {
    return {
      row: row,
      text: (row.cells[1].textContent + " " + row.cells[3].textContent).toLowerCase(),
      score: row.dataset.score,
      reasons: row.dataset.reasons.split(" "),
      need: row.dataset.need,
    };
  });
  const find = function (id) { return document.getElementById(id); };
  const text = find("text"), score = find("score"), reason = find("reason"), shown = find("shown");

  function filter() {
    const wanted = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const item of rows) {
      const keep = (!score.value || item.score === score.value) &&
        (!reason.value || item.need === reason.value || item.reasons.includes(reason.value)) &&
        wanted.every(function (word) { return item.text.includes(word); });
      item.row.hidden = !keep;
      count += keep;
    }
    shown.textContent = count + " of " + rows.length + " shown";
  }

  // What is not known stands last, whichever way the others go.
  function compare(a, b, down) {
    if (a === b) return 0;
    if (a === "" || b === "") return a === "" ? 1 : -1;
    return (a < b) === down ? 1 : -1;
  }

  function sort(head) {
    const column = head.cellIndex, numbers = head.classList.contains("number");
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = rows.map(function (item, index) {
      const text = item.row.cells[column].dataset.sort;
      return { item: item, key: numbers && text ? Number(text) : text, index: index };
    });
    keyed.sort(function (a, b) { return compare(a.key, b.key, down) || a.index - b.index; });
    body.append.apply(body, keyed.map(function (entry) { return entry.item.row; }));
  }

  for (const button of document.querySelectorAll("#slides th button")) {
    button.addEventListener("click", function () { sort(button.parentNode); });
  }
  for (const control of [text, score, reason]) control.addEventListener("input", filter);
  find("reset").addEventListener("click", function () {
    text.value = score.value = reason.value = "";
    filter();
  });
  for (const bar of document.querySelectorAll("[data-pick]")) {
    bar.addEventListener("click", function () {
      const control = find(bar.dataset.pick);
      control.value = control.value === bar.dataset.value ? "" : bar.dataset.value;
      filter();
    });
  }
  document.body.classList.add("live");
  filter();
})();
