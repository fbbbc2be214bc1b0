"use strict";
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("hf_finetune-theme"); } catch { return null; } };
  const show = (theme) => { if (theme) root.dataset.theme = theme; };
  show(stored());
  document.getElementById("theme").addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    const next = now === "dark" ? "light" : "dark";
    show(next);
    try { localStorage.setItem("hf_finetune-theme", next); } catch { /* a file opened without storage */ }
  });
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const first = column === 0 ? "ascending" : "descending";
      const order = before === "ascending" ? "descending" : before === "descending" ? "ascending" : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => {
        const cell = row.cells[column];
        return column === 0 ? cell.textContent : cell.dataset.value === "" ? null : Number(cell.dataset.value);
      };
      const body = table.tBodies[0];
      const rows = [...body.rows].sort((one, two) => {
        const [a, b] = [value(one), value(two)];
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * (column === 0 ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
      });
      body.append(...rows);
    }));
  }
  for (const box of document.querySelectorAll("input.heats")) {
    box.addEventListener("change", () => box.closest(".gallery").classList.toggle("bare", !box.checked));
  }
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
})();
