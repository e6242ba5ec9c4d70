// The decision guide: shows the form, and works out from the page's own tables what the answers leave, what they rule
// out and why. The answers stand in the address. Without this script the form stays hidden and the tables say it all.
(() => {
  const make = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties)
    made.append(...children)
    return made
  }
  const copy = (cell) => [...cell.cloneNode(true).childNodes]

  /** Every technique of the tables: its facts, the cell with its name, and each table's row by workload. */
  function read() {
    const found = new Map()
    for (const box of document.querySelectorAll(".verdicts")) {
      const heads = [...box.querySelectorAll("thead th")].map((head) => head.textContent)
      for (const row of box.querySelectorAll("tbody tr")) {
        const name = row.cells[0]
        const one = found.get(name.dataset.id) ?? { ...name.dataset, name, says: new Map() }
        one.says.set(box.dataset.workload, { good: box.dataset.good === "yes", label: box.dataset.label, heads, cells: row.cells })
        found.set(one.id, one)
      }
    }
    return [...found.values()].sort((a, b) => a.rank - b.rank)
  }

  const list = (items) => (items.length ? make("ul", {}, ...items) : "")
  const said = ({ label, cells }) => make("li", {}, make("strong", { textContent: label }), ": ", ...copy(cells[1]))

  function kept({ one, good, silent }) {
    const { cells, heads } = good[0] ?? [...one.says.values()].find((verdict) => verdict.good) ?? { cells: [], heads: [] }
    const facts = [...cells].slice(2).flatMap((cell, i) => [`${heads[i + 2]}: `, ...copy(cell), ". "])
    return make("li", {}, ...copy(one.name), list([...good.map(said), ...silent.map((label) => make("li", {}, `${label}: nothing is said`))]), make("p", { className: "guide__facts" }, ...facts))
  }

  function dropped({ one, bad, missed }) {
    const why = missed.map(([field, value]) => make("li", {}, make("strong", { className: "guide__field", textContent: field }), `: ${value || "–"}`))
    return make("li", {}, ...copy(one.name), list([...bad.map(said), ...why]))
  }

  const box = (title, items, open) =>
    items.length ? [make("details", { open }, make("summary", { textContent: `${items.length} ${title}` }), make("ol", {}, ...items))] : []

  function guide(form) {
    const methods = read()
    const labels = new Map([...document.querySelectorAll(".verdicts")].map(({ dataset }) => [dataset.workload, dataset.label]))
    const answer = make("div", { className: "guide__answer" })
    const count = form.querySelector("output")

    function show() {
      const options = [...form.querySelectorAll("option:checked, input:checked")].filter((option) => option.value)
      const workloads = options.map((option) => option.value)
      const judged = methods.map((one) => {
        const verdicts = workloads.filter((workload) => one.says.has(workload)).map((workload) => one.says.get(workload))
        const wrong = options.filter(({ dataset }) => dataset.field && !dataset.keep.split(",").some((value) => one[dataset.field].split(",").includes(value)))
        return {
          one,
          good: verdicts.filter((verdict) => verdict.good),
          bad: verdicts.filter((verdict) => !verdict.good),
          silent: workloads.filter((workload) => labels.has(workload) && !one.says.has(workload)).map((workload) => labels.get(workload)),
          missed: wrong.map(({ dataset }) => [dataset.field, one[dataset.field].replaceAll(",", ", ")]),
        }
      })
      const out = judged.filter(({ bad, missed }) => bad.length + missed.length)
      const asked = workloads.some((workload) => labels.has(workload))
      const left = judged.filter((it) => !out.includes(it))
      const fit = left.filter(({ good }) => good.length || !asked).sort((a, b) => b.good.length - a.good.length)
      count.value = options.length ? `${fit.length} of ${methods.length} suit` : "Answer what you know."
      answer.replaceChildren(
        ...(options.length
          ? [
              ...box("suit, the most answers in favour first", fit.map(kept), true),
              ...box("dropped out", out.map(dropped)),
              ...box("of which nothing is said either way", left.filter((it) => !fit.includes(it)).map(({ one }) => make("li", {}, ...copy(one.name)))),
            ]
          : []),
      )
    }

    function answered() {
      const state = new URLSearchParams([...new FormData(form)].filter(([, value]) => value))
      history.replaceState(history.state, "", `${location.pathname}${state.size ? `?${state}` : ""}${location.hash}`)
      show()
    }

    for (const [name, value] of new URLSearchParams(location.search)) {
      const field = [...form.elements].filter((element) => element.name === name)
      for (const element of field) {
        if (element.type === "checkbox") element.checked ||= element.value === value
        else if ([...element.options].some((option) => option.value === value)) element.value = value
      }
    }
    form.onchange = answered
    form.onreset = () => setTimeout(answered) // the fields are reset after this event
    form.onsubmit = (event) => event.preventDefault()
    form.hidden = false
    form.after(answer)
    show()
  }

  document$.subscribe(() => document.querySelectorAll("form.guide[hidden]").forEach(guide))
})()
