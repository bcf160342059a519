"use strict";

// A click on a heading sorts its table, a second one the other way round; what is no number comes last.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const table = heading.closest("table");
    const column = [...heading.parentNode.children].indexOf(heading);
    const isNumber = heading.classList.contains("number");
    const direction = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    const key = (row) => {
      const text = row.children[column].firstChild.textContent;
      return isNumber ? parseFloat(text.replace("inf", "Infinity")) : text;
    };
    const compare = (a, b) => {
      if (!isNumber) return direction * a.localeCompare(b, undefined, { numeric: true });
      if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b);
      return direction * (a - b);
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
  });
}

// Moving pictures play while they are seen, unless the reader has asked for less motion.
const still = matchMedia("(prefers-reduced-motion: reduce)");
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) target.pause();
    else if (!still.matches) target.play().catch(() => {});
  }
});
for (const video of document.querySelectorAll("video")) watcher.observe(video);
