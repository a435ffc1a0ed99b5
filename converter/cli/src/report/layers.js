const list = document.getElementById("layers");
if (list) {
  const rows = [...list.children];
  const filter = document.getElementById("filter");
  const sort = document.getElementById("sort");
  document.querySelector(".tools").hidden = false;
  filter.addEventListener("input", () => {
    const text = filter.value.toLowerCase();
    for (const row of rows) {
      row.hidden = !row.querySelector("summary").textContent.toLowerCase().includes(text);
    }
  });
  sort.addEventListener("change", () => {
    const by = sort.value;
    const sign = by === "order" || by === "db" ? 1 : -1;
    list.append(...rows.sort((a, b) => sign * (a.dataset[by] - b.dataset[by])));
  });
}
