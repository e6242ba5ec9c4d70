// Makes the tables in `.sift` sortable by their heads and filterable by the columns named in data-filters. What the
// reader chose stands in the address, so that it can be sent to somebody. Without this script they are plain tables.
(() => {
  const make = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties)
    made.append(...children)
    return made
  }
  const text = (cell) => cell.textContent.trim()
  const parts = (cell) => text(cell).split(", ")

  function sift(box) {
    const body = box.querySelector("tbody")
    const heads = [...box.querySelectorAll("thead th")]
    const names = heads.map(text)
    const rows = [...body.rows]
    const state = new URLSearchParams(location.search)
    const count = make("output", { className: "sift__count" })
    const controls = new Map()

    function show() {
      let seen = 0
      for (const row of rows) {
        const fits = [...controls].every(([name, control]) => {
          if (!control.value) return true
          if (name === "q") return text(row).toLowerCase().includes(control.value.toLowerCase())
          return parts(row.cells[names.indexOf(name)]).includes(control.value)
        })
        row.hidden = !fits
        seen += fits
      }
      count.value = `${seen} of ${rows.length}`
      const sorted = state.get("sort")
      const column = names.indexOf((sorted ?? "").replace(/^-/, ""))
      heads.forEach((head, i) => {
        if (i === column) head.ariaSort = sorted.startsWith("-") ? "descending" : "ascending"
        else head.removeAttribute("aria-sort")
      })
      const way = sorted?.startsWith("-") ? -1 : 1
      const order = column < 0 ? rows : [...rows].sort((a, b) => way * text(a.cells[column]).localeCompare(text(b.cells[column]), "en", { numeric: true }))
      body.append(...order)
    }

    function choose(name, value) {
      if (value) state.set(name, value)
      else state.delete(name)
      history.replaceState(history.state, "", `${location.pathname}${state.size ? `?${state}` : ""}${location.hash}`)
      show()
    }

    heads.forEach((head, i) => {
      const button = make("button", { type: "button", className: "sift__sort", textContent: names[i] })
      button.onclick = () => choose("sort", state.get("sort") === names[i] ? `-${names[i]}` : names[i])
      head.replaceChildren(button)
    })

    const search = make("input", { type: "search", value: state.get("q") ?? "" })
    search.oninput = () => choose("q", search.value)
    controls.set("q", search)
    const form = make("form", { className: "sift__form" }, make("label", {}, "Search", search))
    form.onsubmit = (event) => event.preventDefault()
    for (const name of (box.dataset.filters ?? "").split(",").filter((n) => names.includes(n))) {
      const found = new Set(rows.flatMap((row) => parts(row.cells[names.indexOf(name)])))
      const options = [...found].filter((value) => value !== "–").sort((a, b) => a.localeCompare(b, "en", { numeric: true }))
      const select = make("select", {}, make("option", { value: "", textContent: "any" }), ...options.map((value) => make("option", { value, textContent: value })))
      select.value = state.get(name) ?? ""
      if (select.selectedIndex < 0) select.value = "" // an address with a value that no row has
      select.onchange = () => choose(name, select.value)
      controls.set(name, select)
      form.append(make("label", {}, name, select))
    }
    const reset = make("button", { type: "button", textContent: "Reset" })
    reset.onclick = () => {
      for (const control of controls.values()) control.value = ""
      for (const key of [...state.keys()]) state.delete(key)
      choose("sort", "")
    }
    form.append(make("p", {}, count, reset))
    box.prepend(form)
    show()
  }

  document$.subscribe(() => document.querySelectorAll(".sift:not(:has(form))").forEach(sift))
})()
